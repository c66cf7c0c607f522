"""Tiny data sets in the layout of each benchmark, and weights to go with them, made on the fly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from models.groupvit import GroupViT, GroupViTConfig
from models.weights import save_model

__all__ = ["IMAGES", "make_layout", "save_mask", "save_photo", "tiny_weights", "write_names"]

SIZES = ((60, 84), (75, 50), (64, 64))
IMAGES = len(SIZES)
_IMAGENET_FOLDERS = ("n01443537", "n01491361", "n02104029")

# ids a mask may hold (the ignored one last), image pattern, mask pattern, list of names
_LAYOUTS: dict[str, tuple[list[int], str, str, str]] = {
    "voc": (
        [*range(21), 255],
        "VOCdevkit/VOC2012/JPEGImages/{}.jpg",
        "VOCdevkit/VOC2012/SegmentationClass/{}.png",
        "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt",
    ),
    "context": (
        [*range(60), 255],
        "VOCdevkit/VOC2010/JPEGImages/{}.jpg",
        "VOCdevkit/VOC2010/SegmentationClassContext/{}.png",
        "VOCdevkit/VOC2010/ImageSets/SegmentationContext/val.txt",
    ),
    "coco_object": (
        [*range(81)],
        "coco_stuff164k/images/val2017/{}.jpg",
        "coco_stuff164k/annotations/val2017/{}_objectTrainIds.png",
        "",
    ),
    "coco_stuff": (
        [*range(171), 255],
        "coco_stuff164k/images/val2017/{}.jpg",
        "coco_stuff164k/annotations/val2017/{}_labelTrainIds.png",
        "",
    ),
    "cityscapes": (
        [*range(19), 255],
        "cityscapes/leftImg8bit/val/bonn/{}_leftImg8bit.png",
        "cityscapes/gtFine/val/bonn/{}_gtFine_labelTrainIds.png",
        "",
    ),
    "ade20k": (
        [*range(151)],
        "ade/ADEChallengeData2016/images/validation/{}.jpg",
        "ade/ADEChallengeData2016/annotations/validation/{}.png",
        "",
    ),
    "imagenet_s_50": (
        [*range(51), 1000],
        "ImageNetS50/validation/{folder}/{}.JPEG",
        "ImageNetS50/validation-segmentation/{folder}/{}.png",
        "",
    ),
    "imagenet_s_300": (
        [*range(301), 1000],
        "ImageNetS300/validation/{folder}/{}.JPEG",
        "ImageNetS300/validation-segmentation/{folder}/{}.png",
        "",
    ),
}
_SAME_FILES = {"voc20": "voc", "context59": "context"}


def make_layout(root: Path, benchmark: str, seed: int = 0) -> list[tuple[Path, Path]]:
    """Write the images and masks of a benchmark; returns their paths, in the order of evaluation."""
    ids, image_pattern, mask_pattern, listing = _LAYOUTS[_SAME_FILES.get(benchmark, benchmark)]
    rng = np.random.default_rng(seed)
    made = []
    for number, size in enumerate(SIZES):
        name, folder = f"{number:012d}", _IMAGENET_FOLDERS[number]
        image, mask = (
            root / pattern.format(name, folder=folder) for pattern in (image_pattern, mask_pattern)
        )
        save_photo(image, size, rng)
        save_mask(mask, coarse_mask(size, ids, rng), wide=max(ids) > 255)
        made.append((image, mask))
    if listing:
        write_names(root / listing, [image.stem for image, _ in made])
    return made


def save_photo(path: Path, size: tuple[int, int], rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    blobs = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(
        size[::-1], Image.Resampling.BICUBIC
    )
    blobs.save(path, format="PNG" if path.suffix == ".png" else "JPEG")


def coarse_mask(size: tuple[int, int], ids: list[int], rng: np.random.Generator) -> np.ndarray:
    """(H, W) int64: patches of a few ids, the last (ignored or highest) always among them."""
    few = np.append(rng.choice(ids[:-1], 5), ids[-1])
    return np.kron(rng.choice(few, (4, 4)), np.ones((25, 25), np.int64))[: size[0], : size[1]]


def save_mask(path: Path, mask: np.ndarray, wide: bool = False) -> None:
    """8-bit grey, or RGB as R + 256 G."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if wide:
        mask = np.stack([mask % 256, mask // 256, np.zeros_like(mask)], axis=-1)
    Image.fromarray(mask.astype(np.uint8)).save(path)


def write_names(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def tiny_weights(path: Path, seed: int = 0) -> Path:
    """A random model of 32-pixel images, its segments told apart."""
    torch.manual_seed(seed)
    model = GroupViT(GroupViTConfig.preset("tiny"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "image_encoder" in name:
                parameter.mul_(8)
    save_model(path, model)
    return path
