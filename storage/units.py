"""The grain of work and of resuming: a unit to do, and the record of one that is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Part", "Unit", "UnitRecord"]


@dataclass(frozen=True)
class Unit:
    """A unit of work: its name, the rows it is known to have (0: unknown), what its task needs, what it is read from."""

    name: str
    rows: int
    payload: Any = None
    source: str = ""
    content: str = ""
    """stands for its input (:mod:`storage.growth`)"""


@dataclass(frozen=True)
class Part:
    """One Parquet file of a table. ``file`` is relative to the table's folder."""

    name: str
    file: str
    rows: int


@dataclass(frozen=True)
class UnitRecord:
    """What one unit of work left behind; ``rows_in`` = rows of all parts + all rejects."""

    unit: str
    parts: tuple[Part, ...]
    rows_in: int
    rejects: dict[str, int] = field(default_factory=dict)
    reject_file: str | None = None
    seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)
    made_of: str = ""
    beside: str = ""

    @property
    def rows_out(self) -> int:
        """Rows in the part files."""
        return sum(part.rows for part in self.parts)
