"""Train GroupViT on a training set: ``horovodrun -np N python -m training.train --config FILE`` or without horovodrun."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.arguments import parse_config
from configs.errors import UserError, run_entry
from configs.schema import CocuConfig
from storage.addresses import join
from training import distributed
from training.build import build, state_tensors
from training.feed.training_set import open_training_set
from training.loop import Run, run_epochs
from training.telemetry import clock

__all__ = ["HELP", "main", "show_summary", "train"]

HELP = """\
Train GroupViT on the table training_set, with the concepts of its archives.

  python -m training.train --config configs/demo.yaml                      one process
  horovodrun -np 4 -H hostA:2,hostB:2 python -m training.train --config F   several (a GPU each, if there are)
  horovodrun --min-np 2 --max-np 8 --host-discovery-script D ... python -m training.train --config F   elastic
  spark-submit training/train_on_spark.py --config F                        inside Spark

Writes to train.output (default <workspace>/training): last.pt, best.pt and step-*.pt (evaluation reads any of
them), tensorboard/, pictures/, history.jsonl, epochs.jsonl, summary.json. Started again it goes on from last.pt;
with the same number of processes the result is that of a run without a break."""


def train(config: CocuConfig) -> dict[str, Any]:
    """Train to the last epoch; returns the summary (rank 0 also writes and prints it).

    Raises:
        UserError: what is wrong with data, options or checkpoint, before any step where it can be known then.
    """
    started = time.monotonic()
    if not config.workspace:
        raise UserError(
            "workspace is not set: name the folder that holds the training set, e.g. workspace=workspace/demo"
        )
    data = open_training_set(_absolute(config.workspace))
    distributed.start()
    run = build(config, data)
    with run.remote or contextlib.nullcontext():
        try:
            if distributed.elastic():
                from training.elastic import run_elastic

                run_elastic(run, state_tensors(run.model, run.optimiser))
            else:
                run_epochs(run)
        finally:
            run.maker.close()
        summary = _summarise(run, time.monotonic() - started)
        if run.telemetry is not None:
            run.telemetry.finish(summary)
            show_summary(summary)
    return summary


def _summarise(run: Run, seconds: float) -> dict[str, Any]:
    progress = run.progress
    return {
        "epochs": progress.epoch,
        "steps": progress.global_step,
        "rows": progress.rows,
        "first_epoch_loss": progress.losses[0] if progress.losses else None,
        "last_epoch_loss": progress.losses[-1] if progress.losses else None,
        "losses": progress.losses,
        "skipped_steps": progress.skipped,
        "bad_images": progress.bad_images,
        "rows_left_out": progress.left_out,
        "sampling": run.config.train.sampling,
        "processes": distributed.size(),
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "seconds": round(seconds, 1),
        "checkpoint": join(run.remote.address if run.remote else str(run.folder), "last.pt"),
    }


def show_summary(summary: dict[str, Any]) -> None:
    """The last line of a training."""
    losses = summary["losses"]
    fall = f"loss {losses[0]:.3f} -> {losses[-1]:.3f}" if losses else "no epoch"
    print(
        f"train: {summary['epochs']} epochs, {summary['steps']:,} steps, {summary['rows']:,} rows, {fall}, "
        f"{summary['skipped_steps']} steps skipped, {summary['bad_images']} images did not decode, "
        f"{clock(summary['seconds'])}; {summary['checkpoint']}",
        flush=True,
    )


def _absolute(workspace: str) -> str:
    return workspace if "://" in workspace else str(Path(workspace).resolve())


def main(argv: Sequence[str]) -> int:
    """Entry of the process."""
    train(parse_config(argv, "python -m training.train", HELP, ["train"]))
    return 0


if __name__ == "__main__":
    run_entry(main)
