"""``benchmarks.json``: what the benchmarks measured, one entry a name, written by all of them.

Two things that are compared run in turn, several rounds in one process, and their ratio is that of the medians;
``spread`` is how far the rounds' own ratios lie apart, (highest - lowest) / median. Seconds are of the
processor, so that other work on the machine shows less.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Entry", "alternate", "machine", "record"]

FILE = Path("benchmarks.json")
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "sve")


@dataclass(frozen=True)
class Entry:
    """One figure.

    Attributes:
        name: of the benchmark, for example ``search_list_major``.
        value: what was measured, in ``unit``.
        compared_with: what ``ratio`` is taken over, in words.
        ratio: how many times better than that, or what ``target`` speaks of.
        target: what the ratio must be, for example ``>= 2``.
        spread: of the ratio over the rounds, or None.
    """

    name: str
    value: float
    unit: str
    compared_with: str
    ratio: float | None
    target: str
    spread: float | None = None


def alternate(
    ours: Callable[[], object], other: Callable[[], object], rounds: int = 5
) -> tuple[float, float, float]:
    """Processor seconds of ``ours`` and ``other``, medians of rounds in turn after one each, and the spread."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for work, found in zip((ours, other), seconds, strict=True):
            start = time.process_time()
            work()
            if number:
                found.append(time.process_time() - start)
    ratios = [theirs / mine for mine, theirs in zip(*seconds, strict=True)]
    spread = (max(ratios) - min(ratios)) / statistics.median(ratios)
    return statistics.median(seconds[0]), statistics.median(seconds[1]), spread


def record(*entries: Entry, file: Path = FILE) -> None:
    """Print the entries and put them into the file, in the place of earlier ones of these names."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    names = {entry.name for entry in entries}
    kept = [entry for entry in known if entry["name"] not in names]
    kept += [{**asdict(entry), "machine": machine()} for entry in entries]
    temporary = file.with_suffix(".writing")
    temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    temporary.replace(file)
    for entry in entries:
        ratio = "" if entry.ratio is None else f"   {entry.ratio:.2f} x {entry.compared_with}"
        spread = "" if entry.spread is None else f", spread {entry.spread:.0%}"
        print(f"{entry.name:28s} {entry.value:12,.4g} {entry.unit}{ratio}{spread}   (target {entry.target})")


def machine() -> str:
    """Model, cores and vector instructions of the processor; no name of the host."""
    facts: dict[str, str] = {}
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    model = facts.get("model name", "unknown processor")
    family = f"family {facts['cpu family']} model {facts['model']}" if "cpu family" in facts else ""
    known = " ".join(flag for flag in _INSTRUCTIONS if flag in flags)
    return ", ".join(text for text in (model, family, f"{os.cpu_count()} cores", known) if text)
