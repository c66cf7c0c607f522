"""What an evaluation leaves: results.json, a table for the terminal, and a figure."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from configs.output_folder import write_whole

__all__ = [
    "class_table", "comparison_table", "draw_figure", "file_hash", "summarise", "summary_table", "write_results",
]  # fmt: skip

_PACKAGES = ("torch", "mmsegmentation", "mmengine", "numpy")


def summarise(
    checkpoint: str, model: dict[str, Any], data: str, processes: int, benchmarks: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The content of results.json; figures in percent, null where a class occurs nowhere.

    Args:
        checkpoint: its path. model: the configuration in it.
        data: what --data says. processes: that shared the work.
        benchmarks: entries of evaluation.benchmarks.runs, without their matrices of pixels.
    """
    return {
        "format": "cocu-evaluation-1",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint": checkpoint,
        "checkpoint_sha256": file_hash(checkpoint),
        "model": model,
        "data": data,
        "processes": processes,
        "packages": {name: version(name) for name in _PACKAGES},
        "benchmarks": [_without_nan(entry) for entry in benchmarks],
    }


def file_hash(path: str) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_results(results: dict[str, Any], out: Path) -> Path:
    """Write ``<out>/results.json``, the old file or the whole new one; returns its path."""
    target = out / "results.json"
    write_whole(target, json.dumps(results, indent=1, allow_nan=False) + "\n")
    return target


def summary_table(benchmarks: Sequence[dict[str, Any]]) -> str:
    """One line a benchmark: mIoU, pixel accuracy, images, images a second; then what could not be read."""
    wide = max(len("benchmark"), *(len(entry["title"]) for entry in benchmarks))
    lines = [f"{'benchmark':{wide}}  {'mIoU':>6}  {'pixels':>6}  {'images':>13}  {'images/s':>8}"]
    for entry in benchmarks:
        of = entry["images_of_split"]
        images = f"{entry['images']:,}" + (f" of {of:,}" if of and of != entry["images"] else "")
        rate = entry["images"] / entry["seconds"]
        lines.append(
            f"{entry['title']:{wide}}  {_percent(entry['miou'])}  {_percent(entry['pixel_accuracy'])}"
            f"  {images:>13}  {rate:8.2f}"
        )
    for entry in benchmarks:
        bad = entry["unreadable"]
        if bad:
            lines.append(f"{entry['title']}: {len(bad):,} left out because a file could not be read:")
            lines.extend(f"  {reason}" for reason in bad)
    return "\n".join(lines)


def comparison_table(names: Sequence[str], results: Sequence[dict[str, Any]]) -> str:
    """mIoU of several checkpoints on the same benchmarks: a line a benchmark, a column a checkpoint."""
    rows = list(zip(*(found["benchmarks"] for found in results), strict=True))
    wide = max(len("mIoU"), *(len(entries[0]["title"]) for entries in rows))
    columns = [max(len(name), 6) for name in names]
    heads = "  ".join(f"{name:>{column}}" for name, column in zip(names, columns, strict=True))
    lines = [f"{'mIoU':{wide}}  {heads}"]
    for entries in rows:
        values = (_percent(entry["miou"]) for entry in entries)
        cells = "  ".join(f"{value:>{column}}" for value, column in zip(values, columns, strict=True))
        lines.append(f"{entries[0]['title']:{wide}}  {cells}")
    return "\n".join(lines)


def class_table(entry: dict[str, Any]) -> str:
    """The IoU of every class of a benchmark, in the data set's order."""
    wide = max(map(len, entry["classes"]))
    rows = (f"  {name:{wide}}  {_percent(value)}" for name, value in entry["classes"].items())
    return "\n".join([f"{entry['title']}, IoU a class:", *rows])


def draw_figure(benchmarks: Sequence[dict[str, Any]], path: Path) -> None:
    """PNG: mIoU of the benchmarks, and of each the IoU of its classes, best first (30 at most)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    count = len(benchmarks)
    figure, axes = pyplot.subplots(1 + count, 1, figsize=(10, 2.2 + 2.8 * count), layout="constrained")
    titles = [entry["title"] for entry in benchmarks]
    bars = axes[0].barh(titles, [entry["miou"] or 0.0 for entry in benchmarks], color="tab:blue")
    axes[0].bar_label(bars, fmt="%.1f", padding=3)
    axes[0].invert_yaxis()
    axes[0].set_xlabel("mIoU, percent")
    for axis, entry in zip(axes[1:], benchmarks, strict=True):
        known = [(value, name) for name, value in entry["classes"].items() if value is not None]
        known.sort(key=lambda pair: -pair[0])
        shown = known[:30]
        axis.bar([name for _, name in shown], [value for value, _ in shown], color="tab:green")
        note = f", the best 30 of {len(known)} classes" if len(known) > len(shown) else ""
        axis.set_title(f"{entry['title']}: IoU in percent{note}", fontsize=10)
        axis.tick_params(axis="x", rotation=90, labelsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _percent(value: float | None) -> str:
    return f"{value:6.2f}" if value is not None else f"{'-':>6}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
