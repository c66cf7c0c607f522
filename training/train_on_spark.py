"""Train inside Spark: ``spark-submit training/train_on_spark.py --config FILE [key=value ...]`` (horovod.spark.run)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # spark-submit puts this file's own folder there

from configs.arguments import parse_config
from configs.errors import UserError, run_entry
from configs.schema import CocuConfig

__all__ = ["HELP", "main", "run_on_spark"]

HELP = """\
Train GroupViT in the executors of a Spark application, one process a task slot that Spark gives (Gloo; NCCL where
Horovod was built with it). Options as in training.train; spark.processes is the number of processes.

Each process reads and rank 0 writes under workspace and train.output, so both must be addresses that every
executor reaches. Not elastic: a lost executor ends the job, and the next run goes on from last.pt."""


def run_on_spark(config: CocuConfig, processes: int = 0) -> dict[str, Any]:
    """Train with ``processes`` processes (0: as many as the application has task slots); returns rank 0's summary.

    Raises:
        UserError: Horovod is not installed here, or the training failed in an executor, with the error that it gave.
    """
    try:
        import horovod.spark
    except ImportError as error:
        raise UserError(
            f"training inside Spark needs Horovod, which does not load here ({error}); install the extra 'horovod', or "
            "train in one process by python -m training.train"
        ) from None
    from pyspark import SparkContext

    from spark_jobs.engine.session import open_session, task_slots

    session = open_session(config)
    try:
        count = processes or task_slots(session)
        results = horovod.spark.run(
            _train_quietly,
            args=(config,),
            num_proc=count,
            use_gloo=True,
            env=dict(os.environ),
            verbose=1,
        )
    except Exception as error:
        raise UserError(f"training inside Spark failed: {' '.join(str(error).split())[:400]}") from error
    finally:
        if SparkContext._active_spark_context is not None:
            session.stop()
    for result in results:
        if isinstance(result, str):
            raise UserError(result)
    return results[0]


def _train_quietly(config: CocuConfig) -> dict[str, Any] | str:
    """A rank's training; a user's mistake comes back as its sentence instead of a trace from an executor."""
    from training.train import train

    try:
        return train(config)
    except UserError as error:
        return str(error)


def main(argv: Sequence[str]) -> int:
    """Entry of the process."""
    config = parse_config(argv, "spark-submit training/train_on_spark.py", HELP, ["train", "spark"])
    from training.feed.training_set import open_training_set
    from training.train import show_summary

    if "://" not in config.workspace:
        config.workspace = str(Path(config.workspace).resolve())
    open_training_set(config.workspace)
    show_summary(run_on_spark(config, config.spark.processes))
    return 0


if __name__ == "__main__":
    from training.train_on_spark import (
        main as entry,
    )  # by its import name, so that executors find its functions

    run_entry(entry)
