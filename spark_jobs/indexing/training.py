"""The lists of an index, of that of the archives and of that of the duplicates: which kind, and where their centres are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.schema import CocuConfig
from curation import index as faiss_index
from curation.index import IndexSpec
from spark_jobs.engine.index_inputs import read_vectors
from spark_jobs.engine.waves import map_units
from storage import tables
from storage.addresses import join
from storage.small_files import read_small, write_atomically
from storage.units import Unit

__all__ = ["kept_centres", "spec_of", "trained_on_sample"]


def spec_of(config: CocuConfig, addresses: Sequence[str], rows: int) -> IndexSpec:
    """Which index some parts of `image_embeddings` get, by the section `index`.

    Raises:
        UserError: there are none, or a wrong option.
    """
    if not addresses:
        raise UserError("there is nothing to index: image_embeddings has no rows of index.corpora")
    dimension = tables.read_schema(addresses[0]).field("embedding").type.byte_width // 2
    options = config.index
    return faiss_index.choose_index(
        rows, dimension, options.memory_gb, options.kind, options.nlist, options.train_rows
    )


def kept_centres(
    session: SparkSession,
    config: CocuConfig,
    table: str,
    recipe: str,
    addresses: Sequence[str],
    spec: IndexSpec,
) -> bytes:
    """``trained_on_sample``, or what a run that was cut off trained: it lies below ``table`` until that is complete."""
    address = join(config.workspace, table, "_parts", "trained", f"{recipe}.npy")
    centres = read_small(address)
    if centres is None:
        centres = trained_on_sample(session, config, addresses, spec)
        write_atomically(address, centres)
    return centres


def trained_on_sample(
    session: SparkSession, config: CocuConfig, addresses: Sequence[str], spec: IndexSpec
) -> bytes:
    """The centres, trained on a sample of some parts, in one task: the sample is too much for a driver."""
    order = np.random.default_rng(0).permutation(len(addresses))
    wanted = config.index.train_rows or spec.sample_rows

    def work(_unit: Unit) -> bytes:
        sample: list[np.ndarray] = []
        if spec.kind != "flat":
            # A few hundred parts at random hold a fair sample; rows within a part at random as well.
            some = order[: max(400, wanted // 600)]
            share = -(-wanted // len(some))
            for number in some:
                vectors = read_vectors(addresses[number])
                rows = np.random.default_rng(int(number)).permutation(len(vectors))[:share]
                sample.append(vectors[np.sort(rows)])
        joined = np.concatenate(sample) if sample else np.zeros((0, spec.d), np.float16)
        return faiss_index.train(joined, spec)

    return map_units(session, [Unit("train", 0)], work)[0]
