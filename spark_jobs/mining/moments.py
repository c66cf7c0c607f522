"""Moments of the images' embeddings, added up by a tree of Spark tasks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np
from pyspark.sql import SparkSession

from configs.errors import UserError
from curation import moments
from curation.moments import ImageMoments
from spark_jobs.engine.session import task_slots
from spark_jobs.engine.units import units_of
from spark_jobs.engine.worker_imports import ready_for_next_task
from storage import tables
from storage.tables import Manifest
from storage.vectors import column_to_vectors

__all__ = ["image_moments"]


def image_moments(session: SparkSession, images: Manifest) -> ImageMoments:
    """Moments of all image embeddings.

    Raises:
        UserError: there are none.
    """
    addresses = [unit.payload[0] for unit in units_of(images)]
    groups = min(len(addresses), 4 * task_slots(session))
    shares = [addresses[start::groups] for start in range(groups)]

    def total(share: Sequence[str]) -> ImageMoments:
        summed = reduce(add, (moments.image_moments(_vectors(address)) for address in share))
        ready_for_next_task()
        return summed

    found = session.sparkContext.parallelize(shares, groups).map(total).treeReduce(add) if shares else None
    if found is None or not found.rows:
        raise UserError("image_embeddings is empty: every pair was rejected; see the rejects of ingest")
    return found


def _vectors(address: str) -> np.ndarray:
    return column_to_vectors(tables.read_file(address, ["embedding"]).column("embedding"))
