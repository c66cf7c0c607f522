"""The ``train.validate`` section of the configuration: how good the model is, found out while it is trained."""

from __future__ import annotations

import re
from dataclasses import dataclass

from configs.errors import UserError
from configs.options import option

__all__ = ["Every", "ValidateConfig", "parse_every"]


@dataclass
class ValidateConfig:
    """Images with masks that the model is tried on; without a benchmark, the loss of held-out pairs says how good it is."""

    benchmark: str = option(
        "",
        "benchmarks as evaluation takes them (voc, ade20k, ...), or folder: images with masks of your own; empty: none",
    )
    data: str = option("", "folder that holds them, for all processes (docs/evaluation.md has the layouts)")
    classes: str = option(
        "", "benchmark=folder: file with the names one a line, in the order of the mask ids"
    )
    every: str = option(
        "1 epoch",
        "when: 'N epochs' or 'N steps'; a checkpoint is written then, and best.pt if it is the best",
    )
    limit: int = option(0, "only the first N images of each benchmark; 0: all")
    short_side: int = option(0, "of the images, pixels; 0: twice the model's image size")
    window: int = option(0, "side of the windows, pixels; 0: twice the model's image size")
    stride: int = option(0, "step between windows, pixels; 0: the model's image size")


@dataclass(frozen=True)
class Every:
    """So many epochs or steps; the other one is 0."""

    epochs: int = 0
    steps: int = 0


def parse_every(text: str) -> Every:
    """``1 epoch``, ``500 steps``.

    Raises:
        UserError: it says neither.
    """
    found = re.fullmatch(r"\s*(\d+)\s*(epoch|step)s?\s*", text)
    if found is None or int(found[1]) < 1:
        raise UserError(
            f"train.validate.every={text!r}: write a number of epochs or steps, e.g. '1 epoch' or '500 steps'"
        )
    number = int(found[1])
    return Every(epochs=number) if found[2] == "epoch" else Every(steps=number)
