"""What cluster-guided sampling trades: how many of the drawn concepts are true, and how many different ones come up.

For temperatures of the draw and for `top`: K = 3 concepts an image an epoch, 10 epochs. Precision is the share of drawn
concepts that are true of the image; diversity the distinct true concepts an image sees in all epochs. True are, for
photos like real-clip, what any of the photo's captions names; for the demo's scenes, what is visible. A table, and a
figure as SVG.

``python -m tests.benchmarks.bench_sampling [--data FOLDER] [--demo WORKSPACE] [--svg FILE.svg]``
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from configs.schema import ArchivesConfig
from curation.archives import build_archives
from curation.sampling import draw_columns
from evaluation.semantic_gap.labels import LabelMatcher, read_synonyms
from evaluation.semantic_gap.truth import read_pictures
from storage import tables
from tests.benchmarks.bench_quality import Task, load_task

EPOCHS, PROMPTS, LENGTH = 10, 3, 16
TEMPERATURES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
Archives = tuple[list[str], list[list[float]], list[list[int]], list[np.ndarray]]
"""Keys, scores, clusters, and whether each concept is true, of every image."""


def photos(task: Task, ranking: str) -> Archives:
    """Archives of the photos with other captions."""
    corpus, own, rows = task.corpus, task.corpus.captions.to_lists(), task.asked
    options = ArchivesConfig(ranking=ranking, top=LENGTH)
    keys = corpus.keys.take(pa.array(rows))
    found = build_archives(keys, corpus.vectors[rows], task.index, options, probe=task.probe)
    true = [
        np.array([concept in task.missing[row] or concept in own[row] for concept in ids], bool)
        for row, ids in zip(rows, found.column("concept_ids").to_pylist(), strict=True)
    ]
    return keys.to_pylist(), *(found.column(name).to_pylist() for name in ("scores", "clusters")), true


def scenes(workspace: Path, pairs: int = 600) -> Archives:
    """Archives of the demo, as its workspace has them."""
    forms = read_synonyms(workspace / "source" / "concepts.json")
    matcher = LabelMatcher(sorted(forms), forms)
    visible = {
        picture.key: set(picture.labels or ()) for picture in read_pictures(workspace / "source/truth.jsonl")
    }
    columns = ["key", "scores", "clusters", "concepts"]
    rows = tables.read_parts(tables.read_manifest(str(workspace), "archives"), columns).slice(0, pairs)
    keys, scores, clusters, concepts = (rows.column(name).to_pylist() for name in columns)
    true = [
        np.array(
            [any(matcher.labels[i] in visible[key] for i in matcher.of_concept(name)) for name in names], bool
        )
        for key, names in zip(keys, concepts, strict=True)
    ]
    return keys, scores, clusters, true


def draws(archives: Archives, mode: str, temperature: float) -> tuple[float, float]:
    """Precision of what is drawn, and distinct true concepts an image, over all epochs."""
    keys, scores, clusters, true = archives
    table, groups, right = (
        _padded(values, fill) for values, fill in ((scores, 0), (clusters, -1), (true, 0))
    )
    drawn, hits = 0, 0
    seen = np.zeros(right.shape, bool)
    for epoch in range(EPOCHS):
        columns = draw_columns(
            table,
            groups.astype(int),
            keys,
            seed=0,
            epoch=epoch,
            k=PROMPTS,
            mode=mode,
            temperature=temperature,
        )
        rows, slots = np.nonzero(columns >= 0)
        chosen = columns[rows, slots]
        drawn += len(chosen)
        hits += int(right[rows, chosen].sum())
        seen[rows, chosen] = True
    return hits / max(1, drawn), float((seen & right.astype(bool)).sum(axis=1).mean())


def _padded(lists: Sequence[Sequence[float]], fill: float) -> np.ndarray:
    table = np.full((len(lists), LENGTH), float(fill))
    for row, values in enumerate(lists):
        table[row, : len(values[:LENGTH])] = values[:LENGTH]
    return table


def measure(archives: Archives) -> dict[str, tuple[float, float]]:
    """By way of drawing."""
    found = {f"{value:g}": draws(archives, "cluster", value) for value in TEMPERATURES}
    return {"top": draws(archives, "top", 1.0), **found}


def figure(curves: dict[str, dict[str, tuple[float, float]]]) -> str:
    """Precision against diversity, a line a corpus, a dot a temperature; as SVG."""
    width, height, colours = 640, 360, ("#3f6fb5", "#0b7a5b", "#a4561e")
    most = max(diversity for curve in curves.values() for _, diversity in curve.values()) * 1.1
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-50 -10 {width + 70} {height + 60}" '
        'font-family="sans-serif" font-size="13" fill="#333">',
        f'<path d="M0 0V{height}H{width}" fill="none" stroke="#999"/>',
        f'<text x="{width / 2}" y="{height + 38}" text-anchor="middle">distinct true concepts an image in 10 epochs '
        f"(0 to {most:.1f})</text>",
        f'<text transform="translate(-34 {height / 2}) rotate(-90)" text-anchor="middle">share of drawn concepts '
        "that are true (0 to 1)</text>",
    ]
    for number, (name, curve) in enumerate(curves.items()):
        colour = colours[number % len(colours)]
        dots = {how: (d / most * width, height * (1 - p)) for how, (p, d) in curve.items()}
        line = " ".join(f"{x:.0f},{y:.0f}" for how, (x, y) in dots.items() if how != "top")
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for how, (x, y) in dots.items():
            parts.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="4" fill="{colour}"/>')
            parts.append(f'<text x="{x + 6:.0f}" y="{y - 6:.0f}" font-size="11">{how}</text>')
        parts.append(f'<text x="{width - 200}" y="{14 + 18 * number}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.environ.get("COCU_REAL_DATA")
    parser.add_argument("--data", type=Path, default=Path(default) / "real-clip" if default else None)
    parser.add_argument("--demo", type=Path, help="workspace of a demo that ran")
    parser.add_argument("--svg", type=Path)
    given = parser.parse_args()
    curves = {}
    if given.data:
        with tempfile.TemporaryDirectory() as work:
            task = load_task(given.data, Path(work))
            for ranking in ("calibrated", "paper"):
                curves[f"photos, {ranking}"] = measure(photos(task, ranking))
    if given.demo:
        curves["demo's scenes"] = measure(scenes(given.demo))
    if not curves:
        parser.error("say what to measure: --data FOLDER like real-clip, --demo WORKSPACE, or both")
    for corpus, curve in curves.items():
        for how, (precision, diversity) in curve.items():
            print(
                f"{corpus:24s}{how:>6s}  precision {precision:.3f}  distinct true {diversity:.2f}", flush=True
            )
    if given.svg:
        given.svg.write_text(figure(curves), encoding="utf-8")


if __name__ == "__main__":
    main()
