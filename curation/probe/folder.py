"""The probe's folder: arrays that every process of a host maps, and what they are.

    probe.json      format, d, concepts, rows, rho, measure, curve; size and CRC-32 of the other files. Written last
    weights.npy     float32 (V, d)
    biases.npy      float32 (V,)
    mean.npy        float32 (d,)
    counts.npy      int64 (V,)
    naming.npy      float32 (V,)

Nothing in it can run code when it is read.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from curation.mapped_files import check_file, file_facts, open_array, read_description
from curation.probe.fit import Probe

__all__ = ["FORMAT", "open_probe", "write_probe"]

FORMAT = "cocu-probe-2"
_FILES = {
    "weights": np.float32,
    "biases": np.float32,
    "mean": np.float32,
    "counts": np.int64,
    "naming": np.float32,
}


def write_probe(folder: str | Path, probe: Probe) -> dict[str, Any]:
    """Write a folder that must not exist; it appears under its name when it is complete. Returns probe.json."""
    target = Path(folder)
    building = target.with_name(target.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    for name, dtype in _FILES.items():
        np.save(building / f"{name}.npy", np.ascontiguousarray(getattr(probe, name), dtype=dtype))
    concepts, d = probe.weights.shape
    facts = {"format": FORMAT, "d": d, "concepts": concepts, **probe.facts}
    facts["files"] = {f"{name}.npy": file_facts(building / f"{name}.npy") for name in _FILES}
    (building / "probe.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    building.replace(target)
    return facts


def open_probe(folder: str | Path, check: str = "sizes") -> Probe:
    """Map a probe's arrays.

    Args:
        folder: local.
        check: ``sizes``, or ``full`` for the checksums too (after a copy).

    Raises:
        UserError: no probe there, another version's, or a file that is missing, truncated or altered.
    """
    root = Path(folder)
    facts = read_description(root, "probe.json", FORMAT, ("files", "concepts", "d"), "fit_probe")
    for name, expected in facts["files"].items():
        check_file(root, name, expected, full=check == "full")
    concepts, d = facts["concepts"], facts["d"]
    shapes = {"mean": (d,), "weights": (concepts, d)}
    arrays = {
        name: open_array(root, f"{name}.npy", dtype, shapes.get(name, (concepts,)))
        for name, dtype in _FILES.items()
    }
    return Probe(**arrays, facts={name: value for name, value in facts.items() if name != "files"})
