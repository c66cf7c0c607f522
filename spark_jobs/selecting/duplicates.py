"""`filters.duplicates=one`: which pair of each group of near-duplicates stays.

It is the first of its group, in the order that find_duplicates gave it (0, 1, ... as `place`), that no other filter
removes: a group of which one pair is left by the others keeps one. The other filters look at the pairs of groups alone,
in tasks; the driver gets 13 bytes for each of these (its group, its place, and whether it is left) and chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.schema import CocuConfig, FilterConfig
from spark_jobs.engine.units import part_address
from spark_jobs.engine.waves import map_units
from spark_jobs.selecting.filters import columns_of, removed_by
from storage import tables
from storage.tables import Manifest
from storage.units import Unit

__all__ = [
    "Members",
    "copies_and_chosen",
    "found_duplicates",
    "with_chosen",
    "with_duplicates",
]

_FACTS = np.dtype([("group", "<i8"), ("place", "<i4"), ("left", "?")])  # of a pair that is in a group


@dataclass(frozen=True)
class Members:
    """The pairs of one part that are in groups: where they are listed, and which of them stay.

    ``chosen``: packed bits, a bit a pair; None: those that stand for their groups.
    """

    address: str
    chosen: bytes | None = None


def found_duplicates(config: CocuConfig, images: Manifest) -> Manifest:
    """The table of groups of these images.

    Raises:
        UserError: it is not there, or of other images, or of another similarity.
    """
    manifest = tables.find_manifest(config.workspace, "duplicates")
    if manifest is None:
        raise UserError(
            f"filters.duplicates=one needs the table 'duplicates', which is not in {config.workspace}; run "
            "find_duplicates first"
        )
    if manifest.inputs.get("image_embeddings") != images.recipe:
        raise UserError(
            "the table 'duplicates' was made of other image_embeddings than are there now; run find_duplicates again"
        )
    similarity = manifest.settings["similarity"]
    if similarity != config.duplicates.similarity:
        raise UserError(
            f"the duplicates were found with duplicates.similarity={similarity}, and the configuration says "
            f"{config.duplicates.similarity}; run find_duplicates again with overwrite=[duplicates], or say "
            f"duplicates.similarity={similarity}"
        )
    return manifest


def with_duplicates(units: Sequence[Unit], duplicates: Manifest | None) -> list[Unit]:
    """The units, their payload longer by where their `Members` are, or by None."""
    if duplicates is None:
        return [replace(unit, payload=(*unit.payload, None)) for unit in units]
    known = {part.name: part_address(duplicates, part) for part in duplicates.parts}
    return [
        replace(unit, payload=(*unit.payload, Members(known[unit.name]) if unit.name in known else None))
        for unit in units
    ]


def with_chosen(session: SparkSession, units: Sequence[Unit], filters: FilterConfig) -> list[Unit]:
    """The units with which pairs of their groups stay, where other filters have a say in it.

    Args:
        session: where the other filters look at the pairs of groups.
        units: of select_pairs; payload: addresses of images and pairs, `Members` or None, filters.
        filters: the section.
    """
    if not (filters.one_of_each and filters.pairwise):
        return list(units)
    found = [np.frombuffer(line, _FACTS) for line in map_units(session, units, _facts_of)]
    facts = np.concatenate([np.zeros(0, _FACTS), *found])
    best = np.full(int(facts["group"].max(initial=-1)) + 1, np.iinfo(np.int32).max, np.int32)
    left = facts[facts["left"]]
    np.minimum.at(best, left["group"], left["place"])
    chosen = facts["left"] & (facts["place"] == best[facts["group"]])
    ends = np.cumsum([len(some) for some in found])
    return [
        _with_members(unit, np.packbits(chosen[end - len(some) : end]).tobytes())
        for unit, some, end in zip(units, found, ends, strict=True)
    ]


def _with_members(unit: Unit, chosen: bytes) -> Unit:
    images, pairs, members, filters = unit.payload
    return unit if members is None else replace(unit, payload=(images, pairs, replace(members, chosen=chosen), filters))  # fmt: skip


def _facts_of(unit: Unit) -> bytes:
    """Group and place of a part's pairs that are in groups, and whether the other filters leave them (in a task)."""
    images_address, pairs_address, members, filters = unit.payload
    if members is None:
        return b""
    listed = tables.read_file(members.address, ["key", "group", "place"])
    facts = np.zeros(len(listed), _FACTS)
    if not len(listed):
        return b""
    pair_columns, image_columns = columns_of(filters)
    keys = listed.column("key")
    pairs = tables.rows_of_keys(tables.read_file(pairs_address, pair_columns), keys)
    images = tables.rows_of_keys(tables.read_file(images_address, image_columns), keys)
    facts["group"], facts["place"] = listed.column("group").to_numpy(), listed.column("place").to_numpy()
    facts["left"] = ~np.any(list(removed_by(filters, pairs, images).values()), axis=0)
    return facts.tobytes()


def copies_and_chosen(members: Members, keys: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray | None]:
    """Of a part's pairs (n,), bool (n,): those for which another stands, and those that may stay.

    The second is None where they are all but the first. A pair in no group may stay.
    """
    listed = tables.read_file(members.address, ["key", "place"])
    rows = pc.index_in(listed.column("key"), value_set=keys.combine_chunks()).to_numpy()
    copies = np.zeros(len(keys), bool)
    copies[rows] = listed.column("place").to_numpy() > 0
    if members.chosen is None:
        return copies, None
    chosen = np.ones(len(keys), bool)
    chosen[rows] = np.unpackbits(np.frombuffer(members.chosen, np.uint8), count=len(rows)).astype(bool)
    return copies, chosen
