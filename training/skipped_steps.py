"""Steps without an update: counted, their rows written down, and too many of them an end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from configs.errors import UserError
from configs.training import TrainConfig
from training import distributed
from training.progress import Progress

__all__ = ["judge_steps"]


def judge_steps(
    folder: Path,
    options: TrainConfig,
    progress: Progress,
    skipped: np.ndarray,
    suspects: list[torch.Tensor],
    keys: list[list[str]],
) -> None:
    """Count the skipped ones of the last steps in ``progress`` and name their rows.

    Args:
        folder: receives ``skipped-rank*.jsonl``.
        skipped: bool (steps,), those up to ``progress.global_step``.
        suspects: for each step, bool (n,): rows whose features are no numbers.
        keys: for each step, the n rows' keys.

    Raises:
        UserError: ``nonfinite`` is stop, or too many steps in a row were skipped.
    """
    first_step = progress.global_step - len(skipped) + 1
    for place, bad in enumerate(skipped.tolist()):
        progress.skipped_in_row = progress.skipped_in_row + 1 if bad else 0
        if not bad:
            continue
        progress.skipped += 1
        rows = zip(keys[place], suspects[place].cpu().tolist(), strict=True)
        named = [key for key, suspect in rows if suspect] or keys[place]
        file = folder / f"skipped-rank{distributed.rank()}.jsonl"
        _report(file, first_step + place, named)
        if options.nonfinite == "stop" or progress.skipped_in_row >= options.max_skipped:
            raise UserError(
                f"step {first_step + place}: the loss or its gradient is no number (on rank {distributed.rank()}: rows "
                f"{', '.join(named[:5])}{', ...' if len(named) > 5 else ''}; all in {file}); lower train.lr, set "
                "train.precision=fp32, or go on from an earlier checkpoint with train.resume"
            )


def _report(file: Path, step: int, keys: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"step": step, "keys": keys}) + "\n")
    if distributed.rank() == 0:
        print(f"step {step}: skipped, its loss or gradient is no number; rows in {file}", flush=True)
