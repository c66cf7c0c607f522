"""The three plots of docs/performance.md, from what the benchmarks left.

``python -m tests.benchmarks.plots SCALE.json`` (written by ``bench_scale --out``; embedding, which needs images,
comes from benchmarks.json where it was measured) writes docs/figures/performance.png: rate by step, cost a
pair against the size of the corpus, and where the time of a pair goes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

__all__ = ["costs", "draw"]

_STEPS = {
    "mining, us a pair": "mine_concepts",
    "index, us a pair": "build_index",
    "archives, us a pair": "build_archives",
}
_RATES = {"embed_job": "embed_images, fp32"}
"""Entries of benchmarks.json in images or pairs a second of one core."""


def costs(
    sizes: Sequence[Mapping[str, Any]], entries: Sequence[Mapping[str, Any]], cores: int
) -> dict[str, float]:
    """Microseconds of one core a pair, by step, for the largest corpus.

    Args:
        sizes: of ``bench_scale --out``, smallest first; wall-clock on ``cores`` cores.
        entries: of benchmarks.json.
        cores: that the sizes were measured on.
    """
    found = {name: float(sizes[-1][column]) * cores for column, name in _STEPS.items()}
    for entry in entries:
        if entry["name"] in _RATES:
            found[_RATES[entry["name"]]] = 1e6 / float(entry["value"])
    return found


def draw(
    sizes: Sequence[Mapping[str, Any]], entries: Sequence[Mapping[str, Any]], cores: int, path: Path
) -> None:
    """Write the figure."""
    figure, (rates, scale, shares) = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    by_step = costs(sizes, entries, cores)
    names = sorted(by_step, key=by_step.__getitem__)
    bars = rates.barh(names, [1e6 / by_step[name] for name in names])
    rates.bar_label(bars, fmt="{:,.0f}", padding=3)
    rates.margins(x=0.15)
    rates.set(xlabel="pairs a second of one core", title=f"rate by step, {sizes[-1]['rows']:,} pairs")
    for column, name in _STEPS.items():
        scale.plot([size["rows"] for size in sizes], [size[column] for size in sizes], "o-", label=name)
    scale.set(
        xscale="log", yscale="log", xlabel="pairs", ylabel=f"us a pair, {cores} cores", title="cost a pair"
    )
    scale.legend()
    total, left = sum(by_step.values()), 0.0
    for name in reversed(names):
        share = 100 * by_step[name] / total
        shares.barh([0], [share], left=left, label=f"{name} {share:.2g} %")
        left += share
    shares.set(
        xlabel="% of the processor time of a pair",
        yticks=[],
        title="where time goes, on CPUs",
        ylim=(-0.5, 2.2),
    )
    shares.legend(loc="upper left", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scale", type=Path)
    parser.add_argument("--entries", type=Path, default=Path("benchmarks.json"))
    parser.add_argument("--cores", type=int, default=2, help="that bench_scale ran on")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/performance.png"))
    given = parser.parse_args()
    draw(json.loads(given.scale.read_text()), json.loads(given.entries.read_text()), given.cores, given.out)


if __name__ == "__main__":
    main()
