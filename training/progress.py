"""How far a training is: what a checkpoint and an elastic commit hold besides weights."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from training.feed.plan import Stretch

__all__ = ["Progress"]


@dataclass
class Progress:
    """Position and sums; plain values, so that files read with ``weights_only`` can hold it."""

    epoch: int = 0
    """epochs completed"""
    stretches: list[Stretch] = field(default_factory=list)
    """of the epoch under way, done with other numbers of processes"""
    size: int = 0
    batch: int = 0
    steps: int = 0
    """steps done in the epoch with ``size`` processes of ``batch`` rows, after the stretches"""
    global_step: int = 0
    rows: int = 0
    """rows trained on, by all ranks and epochs"""
    skipped: int = 0
    """steps without an update, as a loss or gradient was no number"""
    skipped_in_row: int = 0
    bad_images: int = 0
    """grey images in place of JPEGs that did not decode"""
    left_out: int = 0
    """rows left unread at the end of disturbed epochs (``EpochPlan.left_out``)"""
    losses: list[float] = field(default_factory=list)
    """mean loss of each completed epoch"""
    loss_sum: float = 0.0
    loss_steps: int = 0
    measure: str = ""
    """what ``values`` are (``training.validation``); another measure begins them anew"""
    values: list[float] = field(default_factory=list)
    """of the validations so far"""
    validated: int = -1
    """step of the last one"""
    precision: str = ""
    """fp32 or bf16: what ``train.precision=auto`` came to; empty before that"""

    def settle(self, size: int, batch: int) -> None:
        """Go on with ``size`` processes of ``batch`` rows: close the stretch if that is another number."""
        if self.steps and (self.size, self.batch) != (size, batch):
            self.stretches.append(Stretch(self.size, self.batch, self.steps))
            self.steps = 0
        self.size, self.batch = size, batch

    def end_epoch(self) -> float:
        """Close the epoch; returns its mean loss (of the steps whose loss was a number)."""
        loss = self.loss_sum / self.loss_steps if self.loss_steps else float("nan")
        self.losses.append(loss)
        self.epoch += 1
        self.stretches, self.steps, self.loss_sum, self.loss_steps = [], 0, 0.0, 0
        return loss

    def validate(self, measure: str, value: float, higher_is_better: bool) -> bool:
        """Note a validation; returns whether it is the best so far by this measure."""
        if measure != self.measure:
            self.measure, self.values = measure, []
        before = [known for known in self.values if math.isfinite(known)]
        self.values.append(value)
        self.validated = self.global_step
        if not math.isfinite(value):
            return False
        return not before or (value > max(before) if higher_is_better else value < min(before))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        """The inverse of :meth:`to_dict`; what an earlier version also noted is left out."""
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        return cls(**{**known, "stretches": [Stretch(**entry) for entry in values["stretches"]]})
