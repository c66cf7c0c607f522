"""mmseg's IoUMetric, plus what its figures leave out: classes one by one, and what could not be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import evaluation.benchmarks.mmseg_import  # noqa: F401  (before mmseg)

# isort: split
import numpy as np
import torch
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS

__all__ = ["ClassIoUMetric"]


@METRICS.register_module()
class ClassIoUMetric(IoUMetric):
    """Intersections and unions as IoUMetric counts them, summed exactly, all figures in percent, unrounded.

    mmseg adds the pixel counts up in float32, which rounds beyond 16.7 million pixels; here the sums do not
    depend on the order of the images or on the number of processes.

    Args:
        ignore_index: pixels of this id are left out of account.
        collect_dir: folder in which processes put their parts, the same for all.
        **options: of IoUMetric.
    """

    def __init__(self, ignore_index: int = 255, collect_dir: str | None = None, **options: Any) -> None:
        super().__init__(ignore_index=ignore_index, prefix="segmentation", **options)
        self.collect_dir = collect_dir

    def process(self, data_batch: dict[str, Any], data_samples: Sequence[dict[str, Any]]) -> None:
        """Count a batch; a sample marked ``unreadable`` adds its reason and no pixel."""
        for sample in data_samples:
            super().process(data_batch, [sample])
            areas = self.results.pop()
            reason = sample.get("unreadable", "")
            self.results.append((torch.stack(areas).double().numpy(), sample["sample_idx"], reason))

    def compute_metrics(self, results: list[tuple[np.ndarray, int, str]]) -> dict[str, Any]:
        """Of all images: mIoU and pixel accuracy in percent, IoU of each class (NaN: nowhere), bad files."""
        intersection, union, _, truth = np.sum([areas for areas, _, _ in results], axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            classes = 100.0 * intersection / union
            accuracy = 100.0 * intersection.sum() / truth.sum()
        bad = [(number, reason) for _, number, reason in results if reason]
        return {
            "miou": float(np.nanmean(classes)) if union.any() else float("nan"),
            "pixel_accuracy": float(accuracy),
            "classes": {n: float(v) for n, v in zip(self.dataset_meta["classes"], classes, strict=True)},
            "images": len(results) - len(bad),
            "unreadable": [reason for _, reason in sorted(bad)],
        }
