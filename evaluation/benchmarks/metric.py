"""mIoU as mmsegmentation counts it, and what its figure leaves out: each class, what is taken for what, bad files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import evaluation.benchmarks.mmseg_import  # noqa: F401  (before mmseg)

# isort: split
import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS

__all__ = ["ClassIoUMetric", "figures"]


def figures(confusion: np.ndarray) -> tuple[float, float, np.ndarray]:
    """int64 (C, C), pixels of each true class by predicted class -> mIoU, accuracy, IoU (C,), percent; NaN: undefined."""
    hits, truth = confusion.diagonal(), confusion.sum(axis=1)
    union = truth + confusion.sum(axis=0) - hits
    with np.errstate(divide="ignore", invalid="ignore"):
        classes = 100.0 * hits / union
        accuracy = 100.0 * hits.sum() / truth.sum()
    return float(np.nanmean(classes)) if union.any() else float("nan"), float(accuracy), classes


@dataclass(frozen=True)
class _Counted:
    """One image: pixels by truth x classes + prediction, where there are any; ignored ones; its number; what is wrong."""

    cells: np.ndarray
    pixels: np.ndarray
    ignored: int
    number: int
    reason: str


@METRICS.register_module()
class ClassIoUMetric(BaseMetric):
    """Pixels counted by true and predicted class; figures in percent, unrounded.

    The counts are integers: mmseg's IoUMetric adds up in float32, which rounds beyond 16.7 million pixels. They do not
    depend on the order of the images or on the number of processes.

    Args:
        ignore_index: pixels whose truth is this id are left out of account.
        collect_dir: folder in which processes put their parts, the same for all.
        **options: of mmengine's BaseMetric.
    """

    def __init__(self, ignore_index: int = 255, collect_dir: str | None = None, **options: Any) -> None:
        super().__init__(prefix="segmentation", **options)
        self.ignore_index = ignore_index
        self.collect_dir = collect_dir

    def process(self, data_batch: dict[str, Any], data_samples: Sequence[dict[str, Any]]) -> None:
        """Count a batch; a sample marked ``unreadable`` adds its reason and no pixel."""
        classes = len(self.dataset_meta["classes"])
        for sample in data_samples:
            guess = sample["pred_sem_seg"]["data"].flatten()
            truth = sample["gt_sem_seg"]["data"].flatten().to(guess)
            reason = sample.get("unreadable", "")
            valid = truth != self.ignore_index
            if reason:
                valid = torch.zeros_like(valid)
            counts = torch.bincount(truth[valid] * classes + guess[valid], minlength=classes**2)
            cells = counts.nonzero().flatten()
            ignored = 0 if reason else int((~valid).sum())
            self.results.append(
                _Counted(
                    cells.cpu().numpy(), counts[cells].cpu().numpy(), ignored, sample["sample_idx"], reason
                )
            )

    def compute_metrics(self, results: list[_Counted]) -> dict[str, Any]:
        """Of all images: mIoU, accuracy, IoU of each class (NaN: nowhere), pixels by class, bad files.

        ``confusion`` is a list of C lists: pixels of each true class by predicted class.
        """
        size = len(self.dataset_meta["classes"])
        confusion = np.zeros(size**2, np.int64)
        for found in results:
            confusion[found.cells] += found.pixels
        confusion = confusion.reshape(size, size)
        miou, accuracy, classes = figures(confusion)
        bad = [(found.number, found.reason) for found in results if found.reason]
        return {
            "miou": miou,
            "pixel_accuracy": accuracy,
            "classes": {n: float(v) for n, v in zip(self.dataset_meta["classes"], classes, strict=True)},
            "images": len(results) - len(bad),
            "ignored_pixels": sum(found.ignored for found in results),
            "confusion": confusion.tolist(),
            "unreadable": [reason for _, reason in sorted(bad)],
        }
