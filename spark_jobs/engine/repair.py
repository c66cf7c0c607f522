"""The option `verify`: units of a complete table whose files are lost or damaged, found by reading them all."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pyspark.sql import SparkSession

from spark_jobs.engine.failed_units import lost_units
from spark_jobs.engine.session import task_slots
from spark_jobs.engine.waves import map_units
from storage.tables import Manifest
from storage.units import Unit
from storage.verification import find_fault, unit_files

__all__ = ["damaged_units", "tell_damage"]


def damaged_units(session: SparkSession, manifest: Manifest) -> dict[str, str]:
    """Unit -> what is wrong with it, of each that is to be done again; units that failed when it was built, too."""
    units = [Unit(record.unit, 0, unit_files(manifest, record)) for record in manifest.units if record.parts]
    per_task = max(1, len(units) // (8 * task_slots(session)))
    found = dict.fromkeys(lost_units(manifest), "it failed when the table was built")
    if units:
        answers = map_units(session, units, _check, None, per_task)
        faults = zip(units, map(json.loads, answers), strict=True)
        found |= {unit.name: fault for unit, fault in faults if fault}
    return found


def _check(unit: Unit) -> str:
    faults = (find_fault(address, rows) for address, rows in unit.payload)
    return json.dumps(next((fault for fault in faults if fault), ""))


def tell_damage(manifest: Manifest, damage: Mapping[str, str]) -> None:
    """One line on what the reading of a complete table gave, and one for each of the first damaged units."""
    files = sum(len(unit_files(manifest, record)) for record in manifest.units)
    print(
        f"{manifest.job}: {manifest.table} is complete ({manifest.rows:,} rows); verified {files} files: "
        + (
            f"{len(damage)} of {len(manifest.units)} units are done again"
            if damage
            else "all are there and whole"
        ),
        flush=True,
    )
    for name, fault in list(damage.items())[:5]:
        print(f"  {name}: {fault}", flush=True)
