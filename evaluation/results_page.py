"""The page of an evaluation: figures of one or several checkpoints, classes, what is taken for what, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from configs.output_folder import write_whole
from evaluation.html_pages import page_environment

__all__ = ["Evaluated", "write_evaluation_page"]

_MATRIX = 40
"""Classes up to which the whole matrix is shown; of more, the greatest mistakes."""
_MISTAKES = 30


@dataclass(frozen=True)
class Evaluated:
    """A checkpoint's name and folder, and per benchmark its entry of results.json and its (C, C) counts of pixels."""

    name: str
    folder: Path
    benchmarks: Sequence[dict[str, Any]]
    confusions: Sequence[np.ndarray]


def write_evaluation_page(
    path: Path, evaluated: Sequence[Evaluated], facts: Sequence[tuple[str, str]]
) -> None:
    """Write the page; ``evaluated`` are of the same benchmarks, their folders in that of ``path`` or below it."""
    environment = page_environment()
    environment.filters["figure"] = lambda value: "–" if value is None else f"{value:.2f}"
    environment.filters["address"] = quote
    names = [one.name for one in evaluated]
    benchmarks = [_benchmark(path.parent, evaluated, place) for place in range(len(evaluated[0].benchmarks))]
    page = environment.get_template("evaluation.html.j2").render(
        title="Zero-shot segmentation", names=names, benchmarks=benchmarks, facts=facts
    )
    write_whole(path, page)


def _benchmark(root: Path, evaluated: Sequence[Evaluated], place: int) -> dict[str, Any]:
    entries = [one.benchmarks[place] for one in evaluated]
    classes = list(entries[0]["classes"])
    return {
        "title": entries[0]["title"],
        "miou": _marked([entry["miou"] for entry in entries]),
        "pixel_accuracy": _marked([entry["pixel_accuracy"] for entry in entries]),
        "images": [entry["images"] for entry in entries],
        "classes": [(name, _marked([entry["classes"][name] for entry in entries])) for name in classes],
        "confusions": [(one.name, _confusion(classes, one.confusions[place])) for one in evaluated],
        "pictures": _pictures(root, evaluated, entries[0]["name"]),
    }


def _marked(values: Sequence[float | None]) -> list[tuple[float | None, bool]]:
    """Each value and whether it is the best of several."""
    known = [value for value in values if value is not None]
    best = max(known) if len(known) > 1 else None
    return [(value, value is not None and value == best) for value in values]


def _confusion(classes: Sequence[str], counts: np.ndarray) -> dict[str, Any]:
    """Shares of each true class by predicted class: a matrix, or the mistakes that cost most pixels."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if len(classes) <= _MATRIX:
        return {"classes": classes, "rows": list(zip(classes, shares.tolist(), strict=True)), "mistakes": []}
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]
    pairs = [divmod(int(cell), len(classes)) for cell in order if wrong.flat[cell] > 0]
    mistakes = [(classes[true], classes[guess], shares[true, guess]) for true, guess in pairs]
    return {"classes": classes, "rows": [], "mistakes": mistakes}


def _pictures(
    root: Path, evaluated: Sequence[Evaluated], benchmark: str
) -> list[tuple[str, list[tuple[str, str]]]]:
    """(picture, [(checkpoint, address from the page)]) of all pictures that were drawn."""
    found: dict[str, list[tuple[str, str]]] = {}
    for one in evaluated:
        for file in sorted((one.folder / "pictures" / benchmark).glob("*.png")):
            found.setdefault(file.stem, []).append((one.name, file.relative_to(root).as_posix()))
    return sorted(found.items())
