"""The probe's folder: arrays that every process of a host maps, and what they are.

    probe.json      format, d, concepts, rows, rho, measure, curve; size and CRC-32 of the other files. Written last
    weights.npy     float32 (V, d)
    biases.npy      float32 (V,)
    mean.npy        float32 (d,)

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

FORMAT = "cocu-probe-1"
_FILES = ("weights.npy", "biases.npy", "mean.npy")


def write_probe(folder: str | Path, probe: Probe) -> dict[str, Any]:
    """Write a folder that must not exist; it appears under its name when it is complete. Returns probe.json."""
    target = Path(folder)
    building = target.with_name(target.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    for name, values in zip(_FILES, (probe.weights, probe.biases, probe.mean), strict=True):
        np.save(building / name, np.ascontiguousarray(values, dtype=np.float32))
    concepts, d = probe.weights.shape
    facts = {"format": FORMAT, "d": d, "concepts": concepts, **probe.facts}
    facts["files"] = {name: file_facts(building / name) for name in _FILES}
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
    return Probe(
        open_array(root, "mean.npy", np.float32, (d,)),
        open_array(root, "weights.npy", np.float32, (concepts, d)),
        open_array(root, "biases.npy", np.float32, (concepts,)),
        {name: value for name, value in facts.items() if name != "files"},
    )
