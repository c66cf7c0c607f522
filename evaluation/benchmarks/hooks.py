"""What happens beside the test loop: a progress line, and pictures of the first predictions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tqdm import tqdm

from evaluation.benchmarks.datasets import read_image
from evaluation.pictures import comparison

__all__ = ["PictureHook", "ProgressHook"]


class ProgressHook(Hook):
    """One line with images done, rate and time left; of several processes the first one shows its own."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: tqdm | None = None

    def before_test(self, runner: Runner) -> None:
        """Open the line."""
        loader = runner.test_dataloader
        pause = 0.2 if sys.stderr.isatty() else 30.0
        self.bar = tqdm(
            total=len(loader.sampler),
            desc=self.title,
            unit="image",
            mininterval=pause,
            disable=not is_main_process(),
        )

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Count a batch."""
        if self.bar is not None:
            self.bar.update(len(outputs or ()))

    def after_test(self, runner: Runner) -> None:
        """Close the line."""
        if self.bar is not None:
            self.bar.close()


class PictureHook(Hook):
    """Writes ``<folder>/<number>-<name>.png`` of the first ``count`` images: photo, truth, prediction."""

    def __init__(self, folder: Path, count: int, classes: Sequence[str]) -> None:
        self.folder = folder
        self.count = count
        self.classes = classes

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Write those of a batch that are among the first; whichever process has them."""
        for sample in outputs or ():
            if sample.sample_idx >= self.count or "unreadable" in sample.metainfo:
                continue
            truth, guess = (part.data[0].cpu().numpy() for part in (sample.gt_sem_seg, sample.pred_sem_seg))
            self.folder.mkdir(parents=True, exist_ok=True)
            target = self.folder / f"{sample.sample_idx:04d}-{Path(sample.img_path).stem}.png"
            photo = read_image(sample.img_path)[..., ::-1]
            comparison(photo, truth, guess, self.classes).save(target)
