"""Mean and second moment of the images' embeddings, added up by a tree of Spark tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from configs.errors import UserError
from spark_jobs.engine.session import task_slots
from spark_jobs.engine.units import units_of
from storage import tables
from storage.tables import Manifest
from storage.vectors import column_to_vectors

__all__ = ["image_moments"]


def image_moments(session: SparkSession, images: Manifest) -> tuple[int, np.ndarray, np.ndarray]:
    """Rows, mean vector float64 (d,) and second-moment matrix float64 (d, d) of all image embeddings."""
    addresses = [unit.payload[0] for unit in units_of(images)]
    groups = min(len(addresses), 4 * task_slots(session))
    shares = [addresses[start::groups] for start in range(groups)]

    def total(share: Sequence[str]) -> tuple[int, np.ndarray, np.ndarray]:
        parts = None
        for address in share:
            vectors = column_to_vectors(tables.read_file(address, ["embedding"]).column("embedding")).astype(
                np.float64
            )
            here = (len(vectors), vectors.sum(axis=0), vectors.T @ vectors)
            parts = here if parts is None else _add(parts, here)
        assert parts is not None
        return parts

    rows, sums, second = session.sparkContext.parallelize(shares, groups).map(total).treeReduce(_add)
    if rows == 0:
        raise UserError("image_embeddings is empty: every pair was rejected; see the rejects of ingest")
    return rows, sums / rows, second / rows


def _add(left: tuple[int, Any, Any], right: tuple[int, Any, Any]) -> tuple[int, Any, Any]:
    return left[0] + right[0], left[1] + right[1], left[2] + right[2]
