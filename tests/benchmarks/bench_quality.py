"""How well the rankings recover what a caption left out, on real photos: `make quality DATA=FOLDER`.

The folder holds real photos as CLIP embeddings with a caption each (pairs.jsonl: key, caption, other_captions;
image_embeddings.npy; concepts.txt; concept_embeddings.npy). They go the way of the jobs: extraction, moments, index,
probe, archives. Asked for are the concepts that a photo's other captions name and its own does not; ranked are the
archive's concepts without those of the own caption. Intervals are 95 % bootstrap intervals over photos; ratios are
paired: both rankings on the same drawn photos.

Written is quality.json: {ranking: {p_at_1, r_at_3, map, pool_recall, map_interval, ...}}; `paper` and `calibrated` are
the two defaults. `--own` asks for the concepts of the captions themselves instead, on the photos that are not asked
about: what constants are chosen by. `--copies N` plants N near-duplicates (cosine 0.98, the same caption) of every
tenth photo, and also measures archives.duplicate_similarity.

``python -m tests.benchmarks.bench_quality [--data FOLDER] [--own] [--copies N] [--out FILE.json]``
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from configs.schema import ArchivesConfig
from curation.archives import build_archives
from curation.csr import Csr
from curation.index import OpenIndex
from curation.moments import cosine_statistics, image_moments
from curation.probe import Probe
from curation.text.extraction import Extractor
from tests.curation.synthetic import Corpus, build, probe_of

SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {"ranking": "paper"},
    "calibrated": {"ranking": "calibrated"},
    "paper, L = 128": {"ranking": "paper", "neighbours": 128},
    "votes and cosine, no probe": {"ranking": "calibrated", "probe_weight": 0.0, "candidates": "neighbours"},
    "calibrated, neighbours' concepts": {"ranking": "calibrated", "candidates": "neighbours"},
    "calibrated, L = 32": {"ranking": "calibrated", "neighbours": 32},
    "probe and cosine, no votes": {"ranking": "calibrated", "probe_weight": 1.0},
    "calibrated, no plain cosine": {"ranking": "calibrated", "cosine_weight": 0.0},
    "votes and probe, no cosine": {"ranking": "calibrated", "z_weight": 0.0, "cosine_weight": 0.0},
}
COPIES_ONCE: dict[str, dict[str, Any]] = {
    f"{ranking}, copies once ({similarity})": {"ranking": ranking, "duplicate_similarity": similarity}
    for ranking in ("paper", "calibrated")
    for similarity in (0.96, 0.9, 0.85)
}
MEASURES = ("p_at_1", "r_at_3", "map", "pool_recall")
_RESAMPLES = 2000


@dataclass
class Task:
    """The corpus with index and probe, and for every photo the concepts that are asked for."""

    corpus: Corpus
    index: OpenIndex
    probe: Probe
    missing: list[set[int]]

    @property
    def asked(self) -> np.ndarray:
        """Rows of the photos with a missing concept, int64."""
        return np.flatnonzero([bool(concepts) for concepts in self.missing])


def load_task(data: Path, work: Path, copies: int = 0) -> Task:
    """Read the folder, plant ``copies`` of every tenth photo, and index it in the folder ``work``."""
    rows = [json.loads(line) for line in (data / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    names = (data / "concepts.txt").read_text(encoding="utf-8").splitlines()
    words = np.load(data / "concept_embeddings.npy").astype(np.float32)
    images = np.load(data / "image_embeddings.npy").astype(np.float16)
    if copies:
        images = np.concatenate([images, _planted(images[::10], copies)])
        rows += [
            {"key": f"{row['key']}-{number}", "caption": row["caption"]}
            for row in rows[::10]
            for number in range(copies)
        ]
    extractor = Extractor(names)
    captions = extractor.extract([row["caption"] for row in rows])
    moments = image_moments(images)
    statistics = cosine_statistics(words, moments.mean, moments.second)
    keys = pa.array([str(row["key"]) for row in rows])
    corpus = Corpus(keys, images, captions, pa.array(names), words, *statistics)
    missing = [
        {
            concept
            for found in extractor.extract(row.get("other_captions") or []).to_lists()
            for concept in found
        }
        - set(own)
        for row, own in zip(rows, captions.to_lists(), strict=True)
    ]
    return Task(corpus, build(corpus, work / "index"), probe_of(corpus), missing)


def _planted(images: np.ndarray, copies: int) -> np.ndarray:
    """``copies`` of each image in turn, at a cosine of 0.98 to it, float16."""
    originals = np.repeat(images.astype(np.float64), copies, axis=0)
    originals /= np.linalg.norm(originals, axis=1, keepdims=True)
    aside = np.random.default_rng(0).normal(size=originals.shape)
    aside -= (aside * originals).sum(axis=1, keepdims=True) * originals
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    return (0.98 * originals + np.sqrt(1 - 0.98**2) * aside).astype(np.float16)


def archives(task: Task, rows: np.ndarray, options: dict[str, Any]) -> list[list[int]]:
    """All ranked concepts of some photos."""
    corpus = task.corpus
    settings = ArchivesConfig(**{"top": len(corpus.concepts), "clusters": False, **options})
    keys = corpus.keys.take(pa.array(rows))
    built = build_archives(keys, corpus.vectors[rows], task.index, settings, probe=task.probe)
    return Csr.from_list_array(built.column("concept_ids")).to_lists()


def measure(ranked: Sequence[Sequence[int]], wanted: Sequence[set[int]]) -> np.ndarray:
    """P@1, R@3 (of min(3, n)), average precision and the share that is ranked at all, float64 (photos, 4)."""
    table = np.zeros((len(wanted), len(MEASURES)))
    for row, (concepts, right) in enumerate(zip(ranked, wanted, strict=True)):
        hits = np.array([concept in right for concept in concepts] or [False])
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        table[row] = (
            hits[0],
            hits[:3].sum() / min(3, len(right)),
            (precision * hits).sum() / len(right),
            hits.sum() / len(right),
        )
    return table


def recovery(task: Task, options: dict[str, Any]) -> np.ndarray:
    """What the captions left out, found again: measures of every photo that is asked about."""
    own, rows = task.corpus.captions.to_lists(), task.asked
    ranked = [
        [concept for concept in concepts if concept not in own[row]]
        for row, concepts in zip(rows, archives(task, rows, options), strict=True)
    ]
    return measure(ranked, [task.missing[row] for row in rows])


def own_captions(task: Task, options: dict[str, Any]) -> np.ndarray:
    """The photos' own captions, found by those that are not asked about: for choosing constants.

    The probe has seen these captions; compare settings that use it by `recovery` alone.
    """
    named = task.corpus.captions.lengths > 0
    rows = np.setdiff1d(np.flatnonzero(named), task.asked)
    own = task.corpus.captions.gather(rows).to_lists()
    return measure(archives(task, rows, options), [set(concepts) for concepts in own])


def summary(values: np.ndarray, base: np.ndarray) -> dict[str, Any]:
    """Means, intervals, and ratios over another ranking on the same photos (n, 4)."""
    drawn = np.random.default_rng(0).integers(0, len(values), (_RESAMPLES, len(values)))
    means, others = values[drawn].mean(axis=1), base[drawn].mean(axis=1)
    result: dict[str, Any] = {}
    for place, name in enumerate(MEASURES):
        result[name] = float(values[:, place].mean())
        result[f"{name}_interval"] = _interval(means[:, place])
    for place, name in ((1, "r_at_3"), (2, "map")):
        usable = others[:, place] > 0
        result[f"{name}_ratio"] = float(values[:, place].mean() / base[:, place].mean())
        result[f"{name}_ratio_interval"] = _interval(means[usable, place] / others[usable, place])
    return result


def _interval(samples: np.ndarray) -> list[float]:
    return [float(value) for value in np.quantile(samples, [0.025, 0.975])]


def evaluate(
    task: Task, own: bool = False, settings: dict[str, dict[str, Any]] = SETTINGS
) -> dict[str, dict[str, Any]]:
    """Every setting: its figures, and those of the even and the odd photos alone."""
    measured = {
        name: (own_captions if own else recovery)(task, options) for name, options in settings.items()
    }
    base, results = measured["paper"], {}
    even = np.arange(len(base)) % 2 == 0 if own else task.asked % 2 == 0
    for name, values in measured.items():
        results[name] = summary(values, base)
        for half, chosen in (("even", even), ("odd", ~even)):
            if chosen.any():
                results[name][half] = summary(values[chosen], base[chosen])
    return results


def print_table(results: dict[str, dict[str, Any]], photos: int) -> None:
    """The table, a ranking a line."""
    print(f"{photos} photos; over the paper's formula: ratio [95 % interval] (even photos, odd photos)")
    print(
        f"{'':34s}{'P@1':>6s}{'R@3':>7s}{'mAP':>7s} {'':15s}{'pool':>6s}  {'R@3 over paper':32s}mAP over paper"
    )
    for name, entry in results.items():
        figures = "".join(f"{entry[measure]:7.3f}" for measure in MEASURES[:3])
        low, high = entry["map_interval"]
        ratios = "  ".join(_ratio(entry, measure) for measure in ("r_at_3", "map"))
        print(f"{name:33s}{figures} [{low:.3f}, {high:.3f}] {entry['pool_recall']:6.3f}  {ratios}")


def _ratio(entry: dict[str, Any], name: str) -> str:
    low, high = entry[f"{name}_ratio_interval"]
    halves = ", ".join(f"{entry[half][f'{name}_ratio']:.2f}" for half in ("even", "odd") if half in entry)
    return f"{entry[f'{name}_ratio']:.2f} [{low:.2f}, {high:.2f}] ({halves})"


def main() -> None:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.environ.get("COCU_REAL_DATA")
    parser.add_argument("--data", type=Path, default=Path(default) / "real-clip" if default else None)
    parser.add_argument("--own", action="store_true", help="the measure that constants are chosen by")
    parser.add_argument("--copies", type=int, default=0, help="near-duplicates of every tenth photo")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.data is None or not (given.data / "pairs.jsonl").is_file():
        parser.error(
            f"no pairs.jsonl in {given.data}: say where photos like real-clip are: --data FOLDER (make quality "
            "DATA=FOLDER), or set COCU_REAL_DATA to the folder that real-clip is in"
        )
    with tempfile.TemporaryDirectory() as work:
        task = load_task(given.data, Path(work), given.copies)
        settings = SETTINGS | COPIES_ONCE if given.copies else SETTINGS
        results = evaluate(task, given.own, settings)
    print(f"probe: rho {task.probe.facts['rho']:g} of {dict(task.probe.facts['curve'])}")
    print_table(results, len(task.asked))
    if given.out:
        given.out.write_text(json.dumps(results, indent=1) + "\n")
        print(f"written: {given.out}")


if __name__ == "__main__":
    main()
