"""Unseen scenes as each method's model sees them, side by side with the truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from demo.scene_pictures import see
from demo.voc import VOC_FOLDER
from evaluation.pictures import blend, class_palette
from evaluation.protocol import class_texts
from models.weights import load_model

__all__ = ["draw_gallery"]


def draw_gallery(checkpoints: Mapping[str, Path], source: Path, path: Path, scenes: int = 6) -> None:
    """A row a scene: picture, truth, then the prediction of each checkpoint; a class has one colour throughout.

    Args:
        checkpoints: heading of a column -> weight file.
        source: what demo.generate wrote; its first ``scenes`` evaluation scenes are drawn.
        path: PNG to write.
    """
    classes = json.loads((source / "classes.json").read_text(encoding="utf-8"))
    palette, root = class_palette(classes), source / VOC_FOLDER
    names = (root / "ImageSets/Segmentation/val.txt").read_text(encoding="utf-8").split()[:scenes]
    photos = [np.asarray(Image.open(root / "JPEGImages" / f"{name}.jpg").convert("RGB")) for name in names]
    masks = [np.asarray(Image.open(root / "SegmentationClass" / f"{name}.png")) for name in names]
    columns = {"picture": photos, "truth": _coloured(photos, masks, palette)}
    for head, checkpoint in checkpoints.items():
        model, _ = load_model(checkpoint)
        texts = class_texts(model, classes)
        columns[head] = _coloured(photos, [see(model, photo, texts)[0] for photo in photos], palette)
    figure, axes = plt.subplots(
        len(names), len(columns), figsize=(1.9 * len(columns), 1.75 * len(names)), squeeze=False
    )
    for place, (head, panels) in enumerate(columns.items()):
        axes[0][place].set_title(head, fontsize=8)
        for axis, panel in zip(axes[:, place], panels, strict=True):
            axis.imshow(panel)
            axis.axis("off")
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _coloured(photos: list[np.ndarray], labels: list[np.ndarray], palette: np.ndarray) -> list[np.ndarray]:
    return [blend(photo, label, palette) for photo, label in zip(photos, labels, strict=True)]
