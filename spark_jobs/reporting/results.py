"""What training and evaluation left in the workspace, for the report.

``training/summary.json`` (single facts), ``training/history.jsonl`` (a line a step), ``training/pictures/*.png``;
``evaluation/results.json``, ``evaluation/pictures/**.png``. Other programs write these files, perhaps while they
are read: what is missing or has another form is left out of the page.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.fs as pafs

from storage import tables
from storage.addresses import resolve

__all__ = ["Benchmark", "Evaluation", "Training", "load_evaluation", "load_training", "read_json"]

_POINTS = 300  # of a curve; longer histories are averaged in as many bins
_LOSSES = ("loss", "caption_loss", "prompt_loss")
_OTHER_CURVES = ("images_per_second", "grad_norm", "lr")
_PICTURES, _PICTURE_BYTES = 12, 4_000_000
_FACT_CHARACTERS = 80

Points = list[tuple[float, float]]
Picture = tuple[str, bytes]


@dataclass
class Training:
    """A run: facts by name; curves (step, value) by the name of their column; pictures by the file's name."""

    facts: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, Points] = field(default_factory=dict)
    curves: dict[str, Points] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)


@dataclass
class Benchmark:
    """One data set's results in percent; None where there is no value. Classes in falling order of IoU."""

    name: str
    miou: float | None
    pixel_accuracy: float | None
    images: int | None
    classes: list[tuple[str, float | None]]


@dataclass
class Evaluation:
    """All data sets that were evaluated, and pictures by the file's name."""

    checkpoint: str = ""
    benchmarks: list[Benchmark] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def load_training(workspace: str) -> Training | None:
    """The run in ``training/``; None if there is nothing to show of one."""
    folder = tables.join(workspace, "training")
    rows = _read_lines(tables.join(folder, "history.jsonl"))
    found = Training(
        facts=_facts(read_json(tables.join(folder, "summary.json")) or {}),
        losses=_curves(rows, _LOSSES),
        curves=_curves(rows, _OTHER_CURVES),
        pictures=_read_pictures(folder, ends=True),
    )
    return found if found != Training() else None


def load_evaluation(workspace: str) -> Evaluation | None:
    """The results in ``evaluation/``; None if there are none."""
    folder = tables.join(workspace, "evaluation")
    results = read_json(tables.join(folder, "results.json")) or {}
    entries = results.get("benchmarks")
    found = Evaluation(
        checkpoint=str(results.get("checkpoint") or ""),
        benchmarks=[
            _benchmark(entry)
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict)
        ],
        pictures=_read_pictures(folder),
    )
    return found if found.benchmarks or found.pictures else None


def read_json(address: str) -> dict[str, Any] | None:
    """A JSON object, or None where there is none."""
    try:
        values = json.loads(_read(address))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _read(address: str) -> bytes:
    filesystem, path = resolve(address)
    with filesystem.open_input_stream(path) as stream:
        return stream.read()


def _read_lines(address: str) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; a line that is still being written is left out."""
    try:
        lines = _read(address).splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _read_pictures(folder: str, ends: bool = False) -> list[Picture]:
    """PNG files by name: the first ones, or only the first and the last (names count up with the steps)."""
    filesystem, path = resolve(tables.join(folder, "pictures"))
    try:
        infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=True))
    except OSError:
        return []
    usable = sorted(
        (info for info in infos if info.extension == "png" and 0 < (info.size or 0) <= _PICTURE_BYTES),
        key=lambda info: info.base_name,
    )

    def read(infos: Iterable[pafs.FileInfo]) -> Iterator[Picture]:
        for info in infos:
            with filesystem.open_input_stream(info.path) as stream:
                content = stream.read()
            if content.startswith(b"\x89PNG"):
                yield info.base_name.removesuffix(".png"), content

    if ends:
        found = [*itertools.islice(read(usable), 1), *itertools.islice(read(reversed(usable)), 1)]
        return list(dict(found).items())
    return list(itertools.islice(read(usable), _PICTURES))


def _facts(summary: dict[str, Any]) -> dict[str, Any]:
    """What is one short value each; a section's values are named section.key."""
    facts: dict[str, Any] = {}
    for name, value in summary.items():
        if isinstance(value, dict):
            facts.update({f"{name}.{key}": inner for key, inner in _facts(value).items()})
        elif isinstance(value, (bool, int, float, str)) and len(str(value)) <= _FACT_CHARACTERS:
            facts[str(name)] = value
    return facts


def _curves(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Points]:
    curves = {}
    for name in names:
        points = [
            (step, value)
            for number, row in enumerate(rows)
            if (value := _finite(row.get(name))) is not None
            and (step := _finite(row.get("step", number))) is not None
        ]
        if len(points) > 1:
            curves[name] = _thinned(points)
    return curves


def _thinned(points: Points) -> Points:
    """Averages of equally many neighbouring points."""
    size = -(-len(points) // _POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups
    ]


def _benchmark(entry: dict[str, Any]) -> Benchmark:
    classes = entry.get("classes")
    known = classes.items() if isinstance(classes, dict) else ()
    values = [(str(name), _finite(value)) for name, value in known]
    images = _finite(entry.get("images"))
    return Benchmark(
        name=str(entry.get("title") or entry.get("name") or "unnamed"),
        miou=_finite(entry.get("miou")),
        pixel_accuracy=_finite(entry.get("pixel_accuracy")),
        images=None if images is None else int(images),
        classes=sorted(values, key=lambda item: (item[1] is None, -(item[1] or 0.0), item[0])),
    )


def _finite(value: Any) -> float | None:
    """The number, or None for what is none (or a truth value)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
