"""One pass over the retrieval corpus for the probe: each task sums its share of parts, blocks of concepts are added up
in parallel, and one task has the whole, 4 V d bytes, and fits. The driver sees none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from curation.moments import ConceptSums, ImageMoments, concept_sums, image_moments
from curation.probe import LeftOut, Probe, fit_chosen, left_out_of
from spark_jobs.engine.index_inputs import read_part
from spark_jobs.engine.session import task_slots
from spark_jobs.engine.task_errors import translated
from spark_jobs.engine.versions import insist_on, versions
from spark_jobs.engine.worker_imports import ready_for_next_task
from storage.units import Unit

__all__ = ["fit_on_spark"]

_BLOCK = 1024  # concepts that one record carries: 2 MB for d = 512
_IMAGES = -1  # the record of moments and left-out pairs


def fit_on_spark(
    session: SparkSession, units: Sequence[Unit], concepts: int, share: float, store: Callable[[Probe], str]
) -> str:
    """Fit the probe to the pairs of some units and store it; what ``store`` returns.

    Args:
        units: payload: addresses of a part of image_embeddings and of pair_concepts.
        concepts: V.
        share: of the pairs that rho is tried on.
        store: runs in a task.

    Raises:
        UserError: a task met a mistake that the user can mend.
    """
    context = session.sparkContext
    groups = max(1, min(len(units), 4 * task_slots(session)))
    shares = [(number, [unit.payload for unit in units[number::groups]]) for number in range(groups)]
    wanted = None if context.master.startswith("local") else tuple(versions().items())

    def sums(numbered: tuple[int, list[tuple[str, str]]]) -> Iterator[tuple[int, tuple[int, Any]]]:
        if wanted is not None:
            insist_on(wanted)
        number, parts = numbered
        for block, value in _share_sums(parts, concepts, share):
            yield block, (number, value)
        ready_for_next_task()

    def fit(blocks: Iterable[tuple[int, Any]]) -> Iterator[str]:
        yield store(_fit(blocks, concepts))

    try:
        # Each share's sums are added in the order of the shares: rounding does not depend on who came first.
        added = context.parallelize(shares, groups).flatMap(sums).groupByKey(groups).mapValues(_in_order)
        (stored,) = added.repartition(1).mapPartitions(fit).collect()
    except Exception as error:
        raise translated(error) from error
    return stored


def _in_order(numbered: Iterable[tuple[int, Any]]) -> Any:
    return reduce(add, (value for _, value in sorted(numbered, key=lambda entry: entry[0])))


class _ImageSums:
    """Moments and left-out pairs of some parts."""

    def __init__(self, moments: ImageMoments, left_out: LeftOut) -> None:
        self.moments, self.left_out = moments, left_out

    def __add__(self, other: _ImageSums) -> _ImageSums:
        return _ImageSums(self.moments + other.moments, self.left_out + other.left_out)


def _share_sums(
    parts: Sequence[tuple[str, str]], concepts: int, share: float
) -> Iterator[tuple[int, ConceptSums | _ImageSums]]:
    """By number of block: what a share of the parts sums up to."""
    counts = np.zeros(concepts, np.int64)
    sums: np.ndarray | None = None  # the system gives pages of it as concepts occur
    images: list[_ImageSums] = []
    for addresses in parts:
        keys, vectors, captions = read_part(*addresses)
        found = concept_sums(vectors, captions)
        if sums is None:
            sums = np.zeros((concepts, vectors.shape[1]), np.float32)
        counts[found.ids] += found.counts
        sums[found.ids] += found.sums
        images.append(_ImageSums(image_moments(vectors), left_out_of(keys, vectors, captions, share)))
    if sums is not None:
        yield _IMAGES, reduce(add, images)
        ids = np.flatnonzero(counts)
        for start in range(0, concepts, _BLOCK):
            here = ids[(ids >= start) & (ids < start + _BLOCK)]
            if len(here):
                yield start // _BLOCK, ConceptSums(here, counts[here], sums[here])


def _fit(blocks: Iterable[tuple[int, Any]], concepts: int) -> Probe:
    """Put the blocks in their places and fit."""
    images: _ImageSums | None = None
    counts, sums = np.zeros(concepts, np.int64), None
    for number, value in blocks:
        if number == _IMAGES:
            images = value
            continue
        if sums is None:
            sums = np.zeros((concepts, value.sums.shape[1]), np.float32)
        counts[value.ids], sums[value.ids] = value.counts, value.sums
    if images is None:
        raise RuntimeError("no part of the corpus was read")
    if sums is None:  # no caption names a concept
        sums = np.zeros((concepts, len(images.moments.sums)), np.float32)
    return fit_chosen(images.moments, counts, sums, images.left_out)
