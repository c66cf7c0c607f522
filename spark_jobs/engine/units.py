"""Units of the tables after `pairs`: one unit a part file of `pairs`, rows in the same order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from configs.errors import UserError
from corpora.ingest_shard import REJECTS_SCHEMA
from spark_jobs.engine.failed_units import lost_units
from spark_jobs.engine.waves import attempt_name
from storage import tables
from storage.growth import content_of_parts
from storage.tables import Manifest
from storage.units import Part, Unit, UnitRecord

__all__ = ["RejectedRow", "corpus_of", "finish_unit", "part_address", "parts_of", "units_of"]


@dataclass(frozen=True)
class RejectedRow:
    """A row that a stage could not do, and why."""

    key: str
    stage: str
    reason: str
    detail: str = ""


def corpus_of(part: Part) -> str:
    """The corpus a part belongs to."""
    return part.name.partition("/")[0]


def parts_of(manifest: Manifest, corpora: Sequence[str] = ()) -> list[Part]:
    """A table's parts, of some corpora or (empty) of all.

    Raises:
        UserError: a corpus that the table does not hold.
    """
    parts = manifest.parts
    if not corpora:
        return parts
    held = {corpus_of(part) for part in parts}
    for name in corpora:
        if name not in held:
            raise UserError(
                f"corpus '{name}' is not in table '{manifest.table}' of {manifest.workspace}; it holds {', '.join(sorted(held)) or 'none'}"
            )
    return [part for part in parts if corpus_of(part) in set(corpora)]


def part_address(manifest: Manifest, part: Part) -> str:
    """Where a part file is."""
    return tables.join(manifest.folder, part.file)


def units_of(first: Manifest, others: Sequence[Manifest] = (), corpora: Sequence[str] = ()) -> list[Unit]:
    """One unit for each part of ``first``; its payload is the addresses of that part in every table.

    Parts that another table does without (``spark.max_failed_units``) are left out.

    Raises:
        UserError: another table lacks a part, so it was built from something else.
    """
    contents = [content_of_parts(manifest) for manifest in (first, *others)]
    by_name = [{part.name: part for part in manifest.parts} for manifest in others]
    lost = set().union(*(lost_units(manifest) for manifest in others))
    units = []
    for part in parts_of(first, corpora):
        if part.name in lost:
            continue
        addresses = [part_address(first, part)]
        for manifest, known in zip(others, by_name, strict=True):
            if part.name not in known:
                raise UserError(
                    f"table '{manifest.table}' has no part {part.name} of '{first.table}'; run the job {manifest.job} again with overwrite=[{manifest.table}]"
                )
            addresses.append(part_address(manifest, known[part.name]))
        content = " ".join(found[part.name] for found in contents)
        units.append(Unit(part.name, part.rows, tuple(addresses), addresses[0], content))
    return units


def finish_unit(
    unit: Unit,
    folder: str,
    recipe: str,
    rows: pa.Table,
    rejects: Sequence[RejectedRow] = (),
    row_group_rows: int = 2500,
    extra: dict[str, Any] | None = None,
) -> UnitRecord:
    """Write a unit's part and its rejects; the record for the manifest, with ``extra`` in it."""
    attempt = attempt_name()
    file = tables.part_path(recipe, unit.name, attempt)
    count = tables.write_part(folder, file, rows, rows.schema, row_group_rows)
    reject_file = None
    if rejects:
        reject_file = tables.part_path(recipe, f"{unit.name}.rejects", attempt)
        tables.write_part(folder, reject_file, rejects_table(rejects), REJECTS_SCHEMA)
    return UnitRecord(
        unit=unit.name,
        parts=(Part(unit.name, file, count),),
        rows_in=count + len(rejects),
        rejects=dict(Counter(row.reason for row in rejects)),
        reject_file=reject_file,
        extra=extra or {},
    )


def rejects_table(rejects: Sequence[RejectedRow]) -> pa.Table:
    """Rows of the table `rejects`."""
    keys = [row.key.split("/") for row in rejects]
    columns = {
        "key": [row.key for row in rejects],
        "corpus": [names[0] for names in keys],
        "shard": ["/".join(names[1:-1]) for names in keys],
        "sample": [names[-1] for names in keys],
        "stage": [row.stage for row in rejects],
        "reason": [row.reason for row in rejects],
        "detail": [row.detail for row in rejects],
    }
    return pa.table(columns, schema=REJECTS_SCHEMA)
