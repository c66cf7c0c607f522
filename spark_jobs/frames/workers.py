"""What all functions for DataFrames do around their work: on the driver once, on a worker in every task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructField, StructType

from configs.errors import UserError
from configs.schema import ClipConfig, CocuConfig
from spark_jobs.engine.versions import check_executors, insist_on, versions
from spark_jobs.engine.worker_imports import ready_for_next_task

__all__ = ["Workers", "as_batch", "in_place", "ready", "widened"]

Batch = TypeVar("Batch")
_BATCH_BYTES = 8 << 20
_BYTES_CONF = "spark.sql.execution.arrow.maxBytesPerBatch"


@dataclass(frozen=True)
class Workers:
    """The driver's versions, which a worker must have; None where workers run the driver's own Python."""

    wanted: tuple[tuple[str, str], ...] | None

    def guarded(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches of a task's result, after a look at the versions here.

        Raises:
            UserError: this executor has other packages or other code than the driver.
        """
        if self.wanted is not None:
            insist_on(self.wanted)
        yield from batches
        ready_for_next_task()


def ready(session: SparkSession, clip: ClipConfig | None = None) -> Workers:
    """Ask the executors whether they can do the work, and bound what Spark hands them at a time to 8 MB.

    Args:
        session: anybody's; ``spark.sql.execution.arrow.maxBytesPerBatch`` is lowered where it is higher.
        clip: the model whose files they must have.

    Raises:
        UserError: an executor with other packages, code or model files.
    """
    if int(session.conf.get(_BYTES_CONF) or _BATCH_BYTES + 1) > _BATCH_BYTES:
        session.conf.set(_BYTES_CONF, str(_BATCH_BYTES))
    check_executors(session, clip)
    local = session.sparkContext.master.startswith("local")
    return Workers(None if local else tuple(versions().items()))


def in_place(config: CocuConfig) -> CocuConfig:
    """The configuration with a workspace that is found from any folder: workers run in another than a notebook."""
    if "://" in config.workspace:
        return config
    return replace(config, workspace=str(Path(config.workspace).resolve()))


def widened(frame: DataFrame, needed: tuple[str, ...], added: list[StructField]) -> StructType:
    """The columns of ``frame`` and the new ones behind them.

    Raises:
        UserError: a column is missing, or one of the new names is taken.
    """
    for name in needed:
        if name not in frame.columns:
            raise UserError(f"the DataFrame has no column '{name}' but {', '.join(frame.columns)}")
    for entry in added:
        if entry.name in frame.columns:
            raise UserError(
                f"the DataFrame has a column '{entry.name}' already; drop it, or give another name"
            )
    return StructType([*frame.schema.fields, *added])


def as_batch(batch: pa.RecordBatch, added: dict[str, pa.Array]) -> pa.RecordBatch:
    """A batch with further columns behind its own."""
    return pa.RecordBatch.from_arrays([*batch.columns, *added.values()], names=[*batch.schema.names, *added])
