"""How good the model is while it is trained: mIoU by the evaluation's protocol, the loss of held-out pairs, signs.

The one module of training that knows evaluation; mmsegmentation is imported only where a benchmark is asked for.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from configs.errors import UserError
from configs.validation import Every, ValidateConfig, parse_every
from models.groupvit import GroupViT
from training import distributed
from training.feed.batches import BatchMaker
from training.feed.training_set import TrainingSet
from training.step import LossOptions
from training.validation.held_out import held_out_losses

if TYPE_CHECKING:
    from evaluation.benchmarks.shares import SharedBenchmark

__all__ = ["Found", "Validation", "open_benchmarks"]


@dataclass
class Found:
    """Of one validation."""

    values: dict[str, float]
    """name -> figure, for TensorBoard and the history"""
    measure: str
    """what ``value`` is: the mIoU of some benchmarks, or the loss of held-out pairs; empty: nothing was measured"""
    value: float
    unreadable: list[str]
    seconds: float

    @property
    def higher_is_better(self) -> bool:
        """mIoU is, a loss is not."""
        return self.measure.startswith("mIoU")


@dataclass
class Validation:
    """What to measure, and when."""

    every: Every
    held: TrainingSet
    reader: str
    maker: BatchMaker
    options: LossOptions
    benchmarks: list[SharedBenchmark] = field(default_factory=list)

    @property
    def measures(self) -> bool:
        """Whether there is anything to measure; without it there is no ``best.pt``."""
        return bool(self.held.groups or self.benchmarks)

    def due_after_step(self, step: int) -> bool:
        """Whether to validate after so many steps of the training."""
        return self.measures and self.every.steps > 0 and step % self.every.steps == 0

    def due_after_epoch(self, epoch: int, epochs: int) -> bool:
        """Whether to validate after so many epochs; after the last one always."""
        return self.measures and (
            epoch == epochs or (self.every.epochs > 0 and epoch % self.every.epochs == 0)
        )

    def run(self, model: GroupViT) -> Found:
        """Measure; every rank has to call it, and gets the same."""
        started = time.monotonic()
        values: dict[str, float] = {}
        if self.held.groups:
            losses = held_out_losses(model, self.held, self.reader, self.maker, self.options)
            values.update(zip(("loss", "caption_loss", "prompt_loss"), losses.tolist(), strict=True))
        unreadable: list[str] = []
        for shared in self.benchmarks:
            counts, bad = shared.count(model, distributed.rank(), distributed.size())
            total = torch.from_numpy(counts)
            distributed.sum_(total, f"validation.{shared.benchmark.name}")
            values[f"miou/{shared.benchmark.name}"] = _miou(total.numpy())
            unreadable += bad
        if self.benchmarks:
            names = ", ".join(shared.benchmark.name for shared in self.benchmarks)
            mious = [values[f"miou/{shared.benchmark.name}"] for shared in self.benchmarks]
            measure, value = f"mIoU ({names})", float(np.mean(mious))
            values["miou"] = value
        else:
            measure, value = "loss of held-out pairs", values.get("loss", math.nan)
        return Found(values, measure if self.measures else "", value, unreadable, time.monotonic() - started)


def _miou(confusion: np.ndarray) -> float:
    from evaluation.benchmarks.metric import figures

    return figures(confusion)[0]


def open_benchmarks(options: ValidateConfig, image_size: int) -> list[SharedBenchmark]:
    """The benchmarks of ``train.validate``, every file looked for; none where none is named.

    Raises:
        UserError: as evaluation raises it, in the names of these options.
    """
    if not options.benchmark:
        return []
    from evaluation.benchmarks.chosen import Choice, choose, sized
    from evaluation.benchmarks.shares import SharedBenchmark

    choice = Choice(
        benchmark=options.benchmark,
        data=options.data,
        classes=options.classes or None,
        partial=True,
        short_side=options.short_side or None,
        window=options.window or None,
        stride=options.stride or None,
    )
    try:
        chosen = sized(choose(choice), image_size, choice)
        return [SharedBenchmark(benchmark, options.limit or None) for benchmark in chosen]
    except UserError as error:
        raise UserError(re.sub(r"--([a-z-]+)", _named_here, str(error))) from None


def _named_here(option: re.Match[str]) -> str:
    return "train.validate." + option[1].replace("-", "_")


def every_of(options: ValidateConfig) -> Every:
    """When to validate."""
    return parse_every(options.every)


def history_entry(found: Found, step: int, epoch: float, said: list[str]) -> dict[str, Any]:
    """A line of ``history.jsonl``; what is no number is null."""
    figures = {name: value if math.isfinite(value) else None for name, value in found.values.items()}
    return {"step": step, "epoch": round(epoch, 4), "validation": figures, "signs": said}
