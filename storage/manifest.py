"""A manifest: what a table holds and what it was made from, and how it is written down."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from storage.addresses import join
from storage.units import Part, UnitRecord

__all__ = ["Manifest", "decode", "encode", "make_recipe", "plain_unit", "recipe_differences", "unit_of"]

FORMAT = "cocu-table-1"


@dataclass
class Manifest:
    """The entry point of a table: what it holds and what it was made from."""

    table: str
    workspace: str
    job: str
    recipe: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    config: dict[str, Any]
    version: str
    status: str = "partial"
    units: list[UnitRecord] = field(default_factory=list)
    seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)
    waves: dict[str, int] = field(default_factory=dict)
    """of a table that is being built: how many waves each run committed"""

    @property
    def folder(self) -> str:
        """Address of the table's folder."""
        return join(self.workspace, self.table)

    @property
    def parts(self) -> list[Part]:
        """All parts in unit order, which is the order of the rows of the table."""
        return [part for unit in self.units for part in unit.parts]

    @property
    def files(self) -> list[str]:
        """Addresses of all part files, in the order of the rows of the table."""
        return [join(self.folder, part.file) for part in self.parts]

    @property
    def reject_files(self) -> list[str]:
        """Addresses of the files with this stage's rejects."""
        return [join(self.folder, unit.reject_file) for unit in self.units if unit.reject_file]

    @property
    def rows(self) -> int:
        """Rows in the table."""
        return sum(unit.rows_out for unit in self.units)

    @property
    def rows_in(self) -> int:
        """Rows that entered the job."""
        return sum(unit.rows_in for unit in self.units)

    @property
    def rejects(self) -> dict[str, int]:
        """Rejected rows by reason, most frequent first."""
        total: Counter[str] = Counter()
        for unit in self.units:
            total.update(unit.rejects)
        return dict(total.most_common())


def make_recipe(job: str, settings: dict[str, Any], inputs: dict[str, str]) -> str:
    """Twelve hex digits that stand for a job, the settings that shape its rows, and its inputs' recipes."""
    text = json.dumps({"job": job, "settings": settings, "inputs": inputs}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def recipe_differences(old: Manifest, settings: dict[str, Any], inputs: dict[str, str]) -> str:
    """In words, in which settings and inputs a stored table differs from what is asked for."""
    found: list[str] = []
    for key in sorted({*old.settings, *settings}):
        before, now = old.settings.get(key), settings.get(key)
        if before != now:
            found.extend(_nested_differences(key, before, now))
    for key in sorted({*old.inputs, *inputs}):
        if old.inputs.get(key) != inputs.get(key):
            found.append(f"its input '{key}' is another one")
    return "; ".join(found[:6]) or "another version of the job wrote it"


def _nested_differences(key: str, before: Any, now: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
            for line in _nested_differences(f"{key}.{name}", before.get(name), now.get(name))
        ]
    return [f"{key} was {_short(before)} and is now {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def encode(manifest: Manifest) -> bytes:
    """A manifest as JSON, without its workspace, which may be moved or mounted elsewhere.

    By `vars` and without indent, so that the C encoder does it: of 160,000 units 20 s were left to Python's.
    """
    values = {"format": FORMAT, **vars(manifest), "units": [plain_unit(unit) for unit in manifest.units]}
    del values["workspace"]
    return json.dumps(values, default=str).encode()


def decode(data: bytes, workspace: str, table: str) -> Manifest:
    """The other way.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is none of this software.
    """
    values = json.loads(data)
    if values.pop("format") != FORMAT or values["table"] != table:
        raise ValueError("another format")
    values["units"] = [unit_of(table, entry) for entry in values["units"]]
    return Manifest(workspace=workspace, **values)


def plain_unit(unit: UnitRecord) -> dict[str, Any]:
    """A unit's record as plain values."""
    return {**vars(unit), "parts": [vars(part) for part in unit.parts]}


def unit_of(table: str, entry: dict[str, Any]) -> UnitRecord:
    """The record that plain values stand for.

    Raises:
        ValueError: a file that is not below the table's `_parts`.
    """
    parts = tuple(Part(**part) for part in entry.pop("parts"))
    record = UnitRecord(parts=parts, **entry)
    for file in [*(part.file for part in parts), record.reject_file]:
        # A manifest is data: it must not lead a reader out of its table.
        if file is not None and (
            file.startswith("/") or ".." in file.split("/") or not file.startswith("_parts/")
        ):
            raise ValueError(f"the file name '{file}' leads out of table {table}")
    return record
