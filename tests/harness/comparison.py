"""What two workspaces hold, row by row, and what is committed of a table that is being built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage import tables
from storage.units import UnitRecord


def table_rows(workspace: Path, table: str, columns: list[str] | None = None) -> pa.Table:
    """All rows of a complete table in its order."""
    manifest = tables.read_manifest(str(workspace), table)
    return pa.concat_tables(
        [pq.read_table(file, columns=columns, partitioning=None) for file in manifest.files]
    )


def assert_same_tables(one: Path, other: Path, names: Sequence[str]) -> None:
    """Row for row, value for value."""
    for name in names:
        left, right = table_rows(one, name), table_rows(other, name)
        assert left.schema.equals(right.schema), name
        assert left.num_rows == right.num_rows, f"{name}: {left.num_rows} and {right.num_rows} rows"
        assert left.equals(right), f"{name} differs"


def duplicates(rows: pa.Table) -> int:
    """Rows whose key was there before."""
    return rows.num_rows - len(set(rows.column("key").to_pylist()))


def progress_of(workspace: Path, table: str) -> list[UnitRecord]:
    """The committed units of a table that is being built, by whatever recipe."""
    for path in (workspace / table).glob("_progress-*.json"):
        manifest = tables.read_progress(str(workspace), table, path.stem.removeprefix("_progress-"))
        if manifest is not None:  # half of one would be a fault: no error is hidden here
            return manifest.units
    return []


def committed_units(workspace: Path, table: str) -> int:
    """How many they are."""
    return len(progress_of(workspace, table))


def stray_files(workspace: Path, table: str) -> list[Path]:
    """Files among a complete table's parts that its manifest does not name."""
    manifest = tables.read_manifest(str(workspace), table)
    named = {Path(file) for file in [*manifest.files, *manifest.reject_files]}
    found = (workspace / table / "_parts").rglob("*")
    return sorted(path for path in found if path.is_file() and path not in named)
