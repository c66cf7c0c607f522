"""Figures of the experiment: every measure against images seen, and gains per class against how often captions name it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from experiment.plan import METHODS
from experiment.results import BASELINE, KEYS, last_points

__all__ = ["draw_classes", "draw_curves"]


def draw_curves(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """A row of panels a kind of losses, a panel a measure: mean over seeds, lowest to highest as a band."""
    losses = sorted({row["losses"] for row in rows}, reverse=True)
    measured = [key for key in KEYS if any(row[key] is not None for row in rows)]
    figure, axes = plt.subplots(
        len(losses), len(measured), figsize=(3.2 * len(measured), 2.8 * len(losses)), squeeze=False
    )
    for line, kind in zip(axes, losses, strict=True):
        for axis, key in zip(line, measured, strict=True):
            for method in METHODS:
                _curve(
                    axis,
                    [row for row in rows if row["losses"] == kind and row["method"] == method],
                    key,
                    method,
                )
            axis.set_title(f"{key}, {kind} losses", fontsize=9)
            axis.set_xlabel("images seen", fontsize=8)
            axis.tick_params(labelsize=7)
            axis.set_ylim(bottom=0)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncol=3, fontsize=8)
    figure.tight_layout(rect=(0, 0.22 / len(losses), 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _curve(axis: Any, rows: Sequence[dict[str, Any]], key: str, method: str) -> None:
    points: dict[int, list[float]] = {}
    for row in rows:
        if row[key] is not None:
            points.setdefault(row["images"], []).append(row[key])
    if not points:
        return
    images = sorted(points)
    (drawn,) = axis.plot(
        images, [np.mean(points[n]) for n in images], marker=".", label=METHODS[method].title
    )
    low, high = [min(points[n]) for n in images], [max(points[n]) for n in images]
    axis.fill_between(images, low, high, color=drawn.get_color(), alpha=0.15)


def draw_classes(
    rows: Sequence[dict[str, Any]], named: Mapping[str, float], method: str, losses: str, path: Path
) -> None:
    """IoU gain of ``method`` over the baseline, a dot a class, against the share of its pictures whose caption names it."""  # fmt: skip
    last = [row for row in last_points(rows) if row["losses"] == losses]
    ours, base = (_class_means([row for row in last if row["method"] == name]) for name in (method, BASELINE))
    shared = sorted(ours.keys() & base.keys() & named.keys())
    figure, axis = plt.subplots(figsize=(6, 4))
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.scatter([100 * named[name] for name in shared], [ours[name] - base[name] for name in shared], s=12)
    for name in shared:
        axis.annotate(name, (100 * named[name], ours[name] - base[name]), fontsize=6)
    axis.set_xlabel("share of the class's pictures whose caption names it, %")
    axis.set_ylabel(f"IoU gain over {METHODS[BASELINE].title}, points", fontsize=8)
    axis.set_title(f"{METHODS[method].title}, {losses} losses", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _class_means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row["classes"].items():
            values.setdefault(name, []).append(value)
    return {name: float(np.mean(found)) for name, found in values.items()}
