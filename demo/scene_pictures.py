"""Pictures of what a model makes of unseen scenes: picture, truth, prediction and groups, side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from demo.segmentation import SIDE
from demo.voc import VOC_FOLDER
from evaluation.pictures import comparison
from evaluation.protocol import class_texts, encode_windows, resize_short_side
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
    """A picture (H, W, 3) uint8 and class texts (C, E) -> the class and the segment of each pixel, (H, W) each."""
    small = torch.from_numpy(resize_short_side(photo, SIDE).copy())
    found = encode_windows(model, normalise(small[None]), texts)
    segments = found.segments[0].numpy().astype(np.uint8)
    groups = np.asarray(Image.fromarray(segments).resize(photo.shape[1::-1], Image.Resampling.NEAREST))
    return found.scores[0].argmax(dim=-1).numpy()[groups], groups
