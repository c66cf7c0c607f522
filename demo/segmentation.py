"""How well a model segments the demo's unseen scenes, in figures over all labels, and what no model at all would score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from demo.world.scenes import GROUND_LABELS, THINGS

__all__ = [
    "SIDE",
    "STRIDE",
    "WINDOW",
    "evaluate_command",
    "intersection_over_union",
    "read_segmentation",
    "segmentation_figures",
]


def intersection_over_union(confusion: np.ndarray) -> np.ndarray:
    """Pixels by true and predicted class (C, C) -> IoU of each class, float64 (C,), NaN where it is nowhere."""
    hits = np.diagonal(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def segmentation_figures(classes: list[str], confusion: np.ndarray) -> dict[str, float]:
    """Percent: mIoU of all labels, of things and of grounds, pixels right, and two answers that look at no picture.

    ``constant_miou``: the one label for every pixel that scores best; ``chance_miou``: every pixel a label of equal
    chance, in expectation over pixels.

    Args:
        classes: names of the C classes.
        confusion: (C, C), pixels by true and predicted class.
    """
    found = intersection_over_union(confusion)
    share = confusion.sum(axis=1) / confusion.sum()
    shown = share > 0
    drawn = 1 / len(classes)
    chance = share * drawn / (share + drawn - share * drawn)
    means = {
        "miou": found.mean(where=~np.isnan(found)),
        "miou_things": _mean_of(found, classes, THINGS),
        "miou_grounds": _mean_of(found, classes, GROUND_LABELS),
        "accuracy": np.trace(confusion) / confusion.sum(),
        "constant_miou": share.max() / shown.sum(),
        "chance_miou": chance.mean(where=shown),
    }
    return {name: round(100 * float(value), 2) for name, value in means.items()}


def _mean_of(values: np.ndarray, classes: list[str], names: tuple[str, ...]) -> float:
    chosen = np.array([name in names for name in classes]) & ~np.isnan(values)
    return float(values.mean(where=chosen)) if chosen.any() else float("nan")


SIDE, WINDOW, STRIDE = 128, 64, 16
"""Pixels: pictures are brought to twice the model's image size, as GroupViT's own protocol does, and seen through
windows of the size that it was trained at, which is what its training's crops look like."""


def evaluate_command(
    checkpoint: Path, source: Path, out: Path, pictures: int = 0, stride: int = STRIDE
) -> list[str]:
    """The evaluation of the demo's unseen scenes."""
    files = ["--data", str(source), "--classes", str(source / "classes.json"), "--out", str(out)]
    sizes = ["--short-side", str(SIDE), "--window", str(WINDOW), "--stride", str(stride)]
    command = [
        "python",
        "-m",
        "evaluation.evaluate",
        "--checkpoint",
        str(checkpoint),
        "--benchmark",
        "folder",
    ]
    return [*command, *files, *sizes, *(["--pictures", str(pictures)] if pictures else [])]


def read_segmentation(out: Path) -> dict[str, Any]:
    """The figures of an evaluation in ``out``, and of how many scenes."""
    entry = json.loads((out / "results.json").read_text(encoding="utf-8"))["benchmarks"][0]
    confusion = np.loadtxt(
        out / entry["confusion_file"],
        np.int64,
        delimiter=",",
        skiprows=1,
        usecols=range(1, len(entry["classes"]) + 1),
    )
    return {**segmentation_figures(list(entry["classes"]), confusion), "scenes": entry["images"]}
