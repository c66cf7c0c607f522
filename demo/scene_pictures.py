"""Pictures of what a model makes of unseen scenes: picture, truth, prediction and groups, side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from demo.segmentation import SIDE, STRIDE, WINDOW
from demo.voc import VOC_FOLDER
from evaluation.pictures import comparison
from evaluation.protocol import (
    Protocol,
    best_classes,
    class_texts,
    encode_windows,
    resize_short_side,
    slide_images,
)
from models.groupvit import GroupViT
from models.pixels import normalise
from models.weights import load_model

__all__ = ["see", "write_pictures"]


def write_pictures(checkpoint: Path, source: Path, folder: Path, count: int) -> list[Path]:
    """``folder/scene-NAME.png`` of the first ``count`` scenes that demo.generate wrote to ``source``."""
    model, _ = load_model(checkpoint)
    classes = json.loads((source / "classes.json").read_text(encoding="utf-8"))
    texts, root = class_texts(model, classes), source / VOC_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in (root / "ImageSets/Segmentation/val.txt").read_text(encoding="utf-8").split()[:count]:
        photo = np.asarray(Image.open(root / "JPEGImages" / f"{name}.jpg"))
        truth = np.asarray(Image.open(root / "SegmentationClass" / f"{name}.png"))
        guess, groups = see(model, photo, texts)
        written.append(folder / f"scene-{name}.png")
        comparison(photo, truth, guess, classes, groups).save(written[-1])
    return written


def see(model: GroupViT, photo: np.ndarray, texts: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The class and the group of each pixel of a picture (H, W, 3) uint8, (H, W) each; class texts are (C, E).

    Classes are those that the evaluation scores, put together from windows; groups are those of the whole picture.
    """
    protocol, size = Protocol(SIDE, WINDOW, STRIDE), photo.shape[:2]
    pixels = normalise(torch.from_numpy(resize_short_side(photo, SIDE).copy())[None])[0]
    (scores,) = slide_images(model, [pixels], texts, protocol)
    whole = normalise(torch.from_numpy(resize_short_side(photo, model.config.image_size).copy())[None])
    groups = encode_windows(model, whole, texts).segments[0].numpy().astype(np.uint8)
    groups = np.asarray(Image.fromarray(groups).resize(size[::-1], Image.Resampling.NEAREST))
    return best_classes(scores, size).numpy(), groups
