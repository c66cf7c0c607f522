"""What the runs measured: one list, means over seeds, differences to the baseline seed by seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiment.plan import MEASURES, METHODS, Run

__all__ = [
    "BASELINE",
    "KEYS",
    "collect",
    "differences",
    "last_points",
    "losses_table",
    "spread",
    "table",
    "write_json",
]

BASELINE = "caption-nouns"
KEYS = ("miou", "miou_things", "miou_grounds", "accuracy", "oracle_miou", "tagging_map")


def collect(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A row a checkpoint: method, losses, seed, step, images, the figures of ``KEYS`` (None: not measured), classes."""
    rows = []
    for run in runs:
        file = run.folder / MEASURES
        if not file.is_file():
            continue
        for line in file.read_text(encoding="utf-8").splitlines():
            found = json.loads(line)
            figures = {name: found.get(name) for name in (*KEYS, "constant_miou")}
            place = {"method": run.method, "losses": run.losses, "seed": run.seed}
            rows.append(
                {
                    **place,
                    "step": found["step"],
                    "images": found["images"],
                    **figures,
                    "classes": found["classes"],
                }
            )
    return rows


def write_json(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Without the figures of single classes, one object a line."""
    kept = [
        {name: value for name, value in row.items() if name not in ("classes", "constant_miou")}
        for row in rows
    ]
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in kept) + "\n]\n", encoding="utf-8")


def last_points(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each run the row of its last checkpoint."""
    last: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in rows:
        key = (row["method"], row["losses"], row["seed"])
        if key not in last or row["step"] > last[key]["step"]:
            last[key] = row
    return list(last.values())


def spread(values: Sequence[float]) -> str:
    """``mean (lowest to highest)``, or the value alone."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def differences(
    rows: Sequence[dict[str, Any]], method: str, losses: str, key: str, base: tuple[str, str] | None = None
) -> list[float]:
    """One kind of runs minus another, seed by seed; seeds that lack either are left out.

    ``base``: method and losses; None: the baseline with the same losses.
    """

    def by_seed(kind: tuple[str, str]) -> dict[int, float]:
        chosen = [row for row in rows if (row["method"], row["losses"]) == kind]
        return {row["seed"]: row[key] for row in chosen if row[key] is not None}

    ours, others = by_seed((method, losses)), by_seed(base or (BASELINE, losses))
    return [ours[seed] - others[seed] for seed in sorted(ours.keys() & others.keys())]


_HEADS = ["mIoU", "things", "grounds", "pixels right", "oracle mIoU", "tagging mAP"]


def table(rows: Sequence[dict[str, Any]], losses: str) -> str:
    """Markdown: a line a method, percent at the last point, mean and range over seeds; then the paired differences."""
    last = [row for row in last_points(rows) if row["losses"] == losses]
    lines = _begin(["texts", *_HEADS, "mIoU - baseline", "tagging - baseline"])
    for method, described in METHODS.items():
        if any(row["method"] == method for row in last):
            gains = [_gains(differences(last, method, losses, key)) for key in ("miou", "tagging_map")]
            ends = gains if method != BASELINE else ["", ""]
            lines.append(_line([described.title, *_cells(last, method, losses), *ends]))
    return "\n".join(lines)


def losses_table(rows: Sequence[dict[str, Any]], method: str, losses: Sequence[str]) -> str:
    """The same of one method, a line a kind of losses; differences are to the first kind."""
    last = last_points(rows)
    first = (method, losses[0])
    lines = _begin(["losses", *_HEADS, f"mIoU - {losses[0]}", f"tagging - {losses[0]}"])
    for kind in losses:
        if any((row["method"], row["losses"]) == (method, kind) for row in last):
            gains = [_gains(differences(last, method, kind, key, first)) for key in ("miou", "tagging_map")]
            lines.append(
                _line([kind, *_cells(last, method, kind), *(gains if kind != losses[0] else ["", ""])])
            )
    return "\n".join(lines)


def _begin(heads: list[str]) -> list[str]:
    return [_line(heads), _line(["---"] * len(heads))]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(last: Sequence[dict[str, Any]], method: str, losses: str) -> list[str]:
    chosen = [row for row in last if (row["method"], row["losses"]) == (method, losses)]
    return [_cell([row[key] for row in chosen if row[key] is not None]) for key in KEYS]


def _cell(values: list[float]) -> str:
    return spread(values) if values else "-"


def _gains(values: list[float]) -> str:
    return ", ".join(f"{value:+.1f}" for value in values) or "-"
