"""One table to build: what a job tells the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyspark.resource import ResourceProfile

from storage import tables
from storage.growth import mark
from storage.tables import Manifest
from storage.units import Unit, UnitRecord

__all__ = ["TableJob"]


@dataclass
class TableJob:
    """One table to build: ``settings`` and ``inputs`` decide whether a stored table is the right one."""

    job: str
    table: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    units: Sequence[Unit] | Callable[[], Sequence[Unit]]  # a callable: found only when there is work to do
    task: Callable[[Unit, str, str], UnitRecord]  # (unit, table folder, recipe) -> record; runs on executors
    what: str = "pairs"
    profile: ResourceProfile | None = None
    rows_per_task: int = (
        0  # small units are done several in a task, for about so many rows; 0: one unit a task
    )
    whole: bool = False  # of no use with a unit missing, whatever spark.max_failed_units says
    extra: dict[str, Any] = field(default_factory=dict)
    expected: int = 0  # units, where they are found later; 0: unknown
    # A table that grows: what shapes the rows of every unit (settings, recipes); `contents` say the rest.
    # Units that stand for the same are taken over from a complete table, whatever else of its inputs changed.
    common: dict[str, Any] | None = None
    contents: dict[str, str] = field(default_factory=dict)  # unit -> what stands for its input
    beside: str = (
        ""  # recipe of what the units are seen beside, and what may grow without their being done again
    )
    sources: Sequence[Manifest] = ()  # input tables that may have grown with no unit as it was
    stand: bool = True  # false: none is taken over
    # Counted up when the job's code gives other rows for the same settings and inputs: what an older version has
    # begun is not finished by a newer one.
    revision: int = 1
    # Is told what is committed already, before the units are found.
    resume: Callable[[Manifest], None] | None = None
    # Looks at finished units before they are committed, beside those that are.
    accept: Callable[[Manifest, Sequence[UnitRecord]], None] | None = None
    finish: Callable[[Manifest], None] | None = None  # last checks before the table becomes visible

    @property
    def recipe(self) -> str:
        """The hash that names this table's content."""
        return tables.make_recipe(f"{self.job}-{self.revision}", self.settings, self.inputs)

    @property
    def marks(self) -> dict[str, str]:
        """Unit -> `made_of` (:mod:`storage.growth`); empty for a table that does not grow."""
        if self.common is None:
            return {}
        name = f"{self.job}-{self.revision}"
        return {unit: mark(name, self.common, content) for unit, content in self.contents.items()}

    @property
    def common_digest(self) -> str:
        """Stands for ``common``; empty for a table that does not grow."""
        return "" if self.common is None else mark(f"{self.job}-{self.revision}", self.common, "")
