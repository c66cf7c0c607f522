"""A model that is being trained, on benchmarks: each process counts the pixels of its share of the images.

The data set, the pipeline, the segmentor and the counts are those of ``evaluation.evaluate``; only mmengine's Runner is not
here, which moves the model, seeds generators and wants a process group of its own. Counts are whole numbers, so
that their sum over the processes, whoever adds them up, is what one process finds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import evaluation.benchmarks.mmseg_import  # noqa: F401  (before mmseg)

# isort: split
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS

from evaluation.benchmarks.catalogue import Benchmark
from evaluation.benchmarks.metric import ClassIoUMetric
from evaluation.benchmarks.runs import build_segmentor, class_names, dataset_config
from evaluation.class_names import prompt_names
from models.groupvit import GroupViT

__all__ = ["SharedBenchmark"]

_IMAGES_AT_ONCE = 8


class SharedBenchmark:
    """A benchmark whose files were looked for, opened once and counted as often as is wanted."""

    def __init__(self, benchmark: Benchmark, limit: int | None = None) -> None:
        """``limit``: only the first images.

        Raises:
            UserError: classes that are the same to the model.
        """
        self.benchmark = benchmark
        self.classes = class_names(benchmark)
        with (
            tempfile.TemporaryDirectory(prefix="validation-") as scratch,
            DefaultScope.overwrite_default_scope(benchmark.runtime["default_scope"]),
        ):
            config = dataset_config(benchmark, len(self.classes), Path(scratch))
            self._dataset = DATASETS.build({**config, "serialize_data": False})
        self.images = min(limit or len(self._dataset), len(self._dataset))

    @torch.no_grad()
    def count(self, model: GroupViT, number: int = 0, of: int = 1) -> tuple[np.ndarray, list[str]]:
        """Pixels of the images ``number``, ``number + of``, ... by true and predicted class.

        The model is set to evaluation mode and back.

        Returns:
            int64 (C, C); why files could not be read, one text a file.
        """
        was_training = model.training
        model.eval()
        try:
            return self._count(model, list(range(number, self.images, of)))
        finally:
            model.train(was_training)

    def _count(self, model: GroupViT, places: Sequence[int]) -> tuple[np.ndarray, list[str]]:
        device = next(model.parameters()).device
        segmentor = build_segmentor(self.benchmark, prompt_names(self.benchmark.name, self.classes), model)
        segmentor.to(device)  # its preprocessor has to know; the model is there already
        segmentor.eval()
        metric = ClassIoUMetric(self.benchmark.ignore_index)
        metric.dataset_meta = {"classes": self.classes}
        at_once = _IMAGES_AT_ONCE if device.type == "cuda" else 1
        for start in range(0, len(places), at_once):
            batch = pseudo_collate([self._dataset[place] for place in places[start : start + at_once]])
            samples: list[Any] = segmentor.test_step(batch)
            metric.process(batch, [sample.to_dict() for sample in samples])
        size = len(self.classes)
        if not metric.results:
            return np.zeros((size, size), np.int64), []
        found = metric.compute_metrics(metric.results)
        return np.array(found["confusion"], np.int64).reshape(size, size), found["unreadable"]
