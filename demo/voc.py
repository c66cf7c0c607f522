"""Evaluation scenes in PASCAL VOC's folder layout: pictures, palette masks, list of names.

The classes are all labels, things and grounds alike: every pixel has one, and there is no background.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from demo.samples import EVALUATION_STREAM
from demo.world.scenes import LABELS, make_scene

__all__ = ["CLASSES", "VOC_FOLDER", "prepare_folders", "scene_name", "voc_palette", "write_scenes"]

CLASSES: tuple[str, ...] = LABELS
VOC_FOLDER = "VOCdevkit/VOC2012"


def voc_palette() -> list[int]:
    """VOC's 256 colours, flat RGB: the bits of an index spread over the high bits of the three channels."""
    colours = np.zeros((256, 3), np.uint8)
    for index in range(256):
        rest = index
        for bit in range(7, -1, -1):
            for channel in range(3):
                colours[index, channel] |= ((rest >> channel) & 1) << bit
            rest >>= 3
    return colours.ravel().tolist()


def scene_name(number: int) -> str:
    """File stem of evaluation scene ``number``."""
    return f"2012_{number:06d}"


def prepare_folders(folder: Path, scenes: int) -> None:
    """Make the layout's folders and the list ``val.txt`` of ``scenes`` names."""
    root = folder / VOC_FOLDER
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True, exist_ok=True)
    names = "".join(f"{scene_name(number)}\n" for number in range(scenes))
    (root / "ImageSets/Segmentation/val.txt").write_text(names)


def write_scenes(folder: Path, seed: int, numbers: range) -> int:
    """Write pictures and masks of the evaluation scenes ``numbers``; returns how many."""
    root, palette = folder / VOC_FOLDER, voc_palette()
    for number in numbers:
        scene = make_scene((seed, EVALUATION_STREAM, number))
        picture = str(root / "JPEGImages" / f"{scene_name(number)}.jpg")
        cv2.imwrite(picture, scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        mask = Image.fromarray(scene.mask, mode="P")
        mask.putpalette(palette)
        mask.save(root / "SegmentationClass" / f"{scene_name(number)}.png")
    return len(numbers)
