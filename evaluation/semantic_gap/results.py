"""The figures of the semantic gap as JSON and as lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from evaluation.semantic_gap.comparison import Gap
from evaluation.semantic_gap.measures import Measures

__all__ = ["results_of", "summary_of"]

_RANKS = (1, 3, 5, 10)


def results_of(gap: Gap, truth: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What results.json holds."""
    return {
        "truth": truth,
        "options": dict(options),
        "pictures": len(gap.truth.keys),
        "labels": len(gap.truth.labels),
        "visible": len(gap.truth.rows),
        "caption_recall": gap.caption_recall,
        "archives": {
            result.name: {
                "visible": _figures(result.visible),
                "missing": None if result.missing is None else _figures(result.missing),
                "caption_or_archive_recall": None
                if result.joint_recall is None
                else _rounded(result.joint_recall),
            }
            for result in gap.archives
        },
        "by_area": gap.areas,
        "notes": gap.notes,
    }


def _figures(measures: Measures) -> dict[str, Any]:
    return {
        "pictures": measures.pictures,
        "empty_archives": measures.empty,
        "mean_average_precision": measures.average_precision,
        "pool_recall": measures.pool_recall,
        "standard_errors": measures.errors,
        **{
            f"precision_at_{k}": float(measures.precision[k - 1])
            for k in _RANKS
            if k <= len(measures.precision)
        },
        **{f"recall_at_{k}": float(measures.recall[k - 1]) for k in _RANKS if k <= len(measures.recall)},
        "curves": {
            "precision": _rounded(measures.precision),
            "recall": _rounded(measures.recall),
            "recall_of_min_k_n": _rounded(measures.capped_recall),
        },
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values]


def summary_of(gap: Gap) -> str:
    """Plain text for the terminal."""
    truth = gap.truth
    lines = [
        f"{len(truth.keys):,} pictures show {len(truth.rows):,} labels ({len(truth.labels):,} different)"
    ]
    if gap.caption_recall is not None:
        lines.append(f"captions name {gap.caption_recall:.1%} of what a picture shows")
    for result in gap.archives:
        parts = [("visible", result.visible)] + (
            [("left out by captions", result.missing)] if result.missing else []
        )
        for what, found in parts:
            lines.append(
                f"{result.name}, {what}: mAP {found.average_precision:.3f} (+- {found.errors['average_precision']:.3f}), "
                + ", ".join(
                    f"P@{k} {found.precision[k - 1]:.3f} R@{k} {found.recall[k - 1]:.3f}"
                    for k in _RANKS
                    if k <= len(found.recall)
                )
                + f", whole archive {found.pool_recall:.3f} ({found.pictures:,} pictures, {found.empty:,} archives empty)"
            )
        if result.joint_recall is not None and len(result.joint_recall) >= 5:
            lines.append(
                f"{result.name}: caption and best five concepts together name {result.joint_recall[4]:.1%}"
            )
    return "\n".join([*lines, "", *_area_lines(gap), *(f"note: {note}" for note in gap.notes)])


def _area_lines(gap: Gap) -> list[str]:
    """The table by area, columns aligned."""
    names = [name for name in gap.areas[0] if name not in ("low", "high", "visible")]
    rows = [["area", "labels", *names]]
    for number, row in enumerate(gap.areas):
        shares = ["-" if row[name] is None else f"{row[name]:.1%}" for name in names]
        rows.append(
            [
                "all" if number == 0 else f"{row['low']:.2%} - {row['high']:.2%}",
                f"{row['visible']:,}",
                *shares,
            ]
        )
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
