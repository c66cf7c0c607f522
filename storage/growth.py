"""Tables that grow: which units of a complete table stand in the one that takes its place, and of what a row was made.

Two marks are in a unit's record. ``made_of`` stands for everything that decides whether the unit has to be done again:
the job, its settings, and the unit's own input. ``beside`` names what it was seen beside and what may grow without
the unit being done again (the index, for an archive). A table's unit is, for the tables made from it, both together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from storage.manifest import Manifest, make_recipe
from storage.units import Part, UnitRecord

__all__ = ["GROWN_FROM", "content_of_parts", "grew", "lineage", "mark", "standing_units"]

GROWN_FROM = "grown_from"
"""Entry of a manifest's ``extra``: recipes of the tables that it grew from."""


def mark(job: str, common: Mapping[str, Any], content: str) -> str:
    """``made_of`` of a unit.

    Args:
        job: name and revision.
        common: settings, and recipes of inputs, that shape the rows of every unit.
        content: what stands for the unit's own input.
    """
    return make_recipe(job, dict(common), {"unit": content})


def content_of_parts(manifest: Manifest) -> dict[str, str]:
    """Part -> what stands for its rows; that of a table without marks is the table's recipe."""
    return {part.name: _content(manifest, record, part) for record in manifest.units for part in record.parts}


def _content(manifest: Manifest, record: UnitRecord, part: Part) -> str:
    return (
        f"{record.made_of}+{record.beside}/{part.name}"
        if record.made_of
        else f"{manifest.recipe}/{part.name}"
    )


def standing_units(old: Manifest, wanted: Mapping[str, str]) -> list[UnitRecord]:
    """Records of a complete table whose units are wanted as they are; failed ones are done again.

    Args:
        wanted: unit -> its ``made_of``.
    """
    return [
        record
        for record in old.units
        if record.made_of and wanted.get(record.unit) == record.made_of and "failed" not in record.extra
    ]


def lineage(old: Manifest) -> list[str]:
    """Recipes of a table and of those that it grew from, the oldest first."""
    return [*old.extra.get(GROWN_FROM, []), old.recipe]


def grew(done: Manifest, inputs: Sequence[Manifest]) -> bool:
    """Whether ``done`` was built from these tables, or from what they grew from."""
    return all(done.inputs.get(table.table) in lineage(table) for table in inputs)
