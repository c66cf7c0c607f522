"""How well the rankings recover what a caption left out, on real photos.

The folder real-clip (986 photos as CLIP ViT-B/32 embeddings, one caption each) goes the way of the jobs:
extraction, index, archives. Asked for are the concepts that a photo's other captions name and its own does
not; ranked are the archive's concepts without those of the own caption.

The constants of `calibrated` were chosen on the photos that are not asked about, by how well the archives
find the concepts of their own captions; `--own` prints that measure.

``python -m tests.benchmarks.bench_quality [--data FOLDER] [--own] [--out FILE.json]``
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
from curation.text.extraction import Extractor
from tests.curation.synthetic import Corpus, build

BASELINE = "paper, L = 8"
SETTINGS: dict[str, dict[str, Any]] = {
    BASELINE: {"neighbours": 8},
    "paper, L = 128": {"neighbours": 128},
    "calibrated, L = 8": {"neighbours": 8, "ranking": "calibrated"},
    "calibrated, L = 32": {"neighbours": 32, "ranking": "calibrated"},
    "calibrated, L = 64": {"neighbours": 64, "ranking": "calibrated"},
    "calibrated, L = 128": {"neighbours": 128, "ranking": "calibrated"},
    "votes alone, L = 128": {"neighbours": 128, "ranking": "calibrated", "z_weight": 0.0},
}


@dataclass
class Task:
    """The corpus with its index, and for every photo the concepts that are asked for."""

    corpus: Corpus
    index: OpenIndex
    missing: list[set[int]]

    @property
    def asked(self) -> np.ndarray:
        """Rows of the photos with a missing concept, int64."""
        return np.flatnonzero([bool(concepts) for concepts in self.missing])


def load_task(data: Path, work: Path) -> Task:
    """Read real-clip and index it in the folder ``work``."""
    rows = [json.loads(line) for line in (data / "pairs.jsonl").read_text().splitlines()]
    names = (data / "concepts.txt").read_text().splitlines()
    words = np.load(data / "concept_embeddings.npy").astype(np.float32)
    images = np.load(data / "image_embeddings.npy")
    extractor = Extractor(names)
    captions = extractor.extract([row["caption"] for row in rows])
    cosines = images.astype(np.float32) @ words.T
    keys = pa.array([row["key"] for row in rows])
    corpus = Corpus(keys, images, captions, pa.array(names), words, cosines.mean(axis=0), cosines.std(axis=0))
    missing = [
        {
            concept
            for found in extractor.extract(row.get("other_captions", [])).to_lists()
            for concept in found
        }
        - set(own)
        for row, own in zip(rows, captions.to_lists(), strict=True)
    ]
    return Task(corpus, build(corpus, work / "index"), missing)


def archives(task: Task, rows: np.ndarray, options: dict[str, Any]) -> list[list[int]]:
    """All ranked concepts of some photos."""
    corpus = task.corpus
    settings = ArchivesConfig(**{"top": len(corpus.concepts), "clusters": False, **options})
    built = build_archives(corpus.keys.take(pa.array(rows)), corpus.vectors[rows], task.index, settings)
    return Csr.from_list_array(built.column("concept_ids")).to_lists()


def measure(ranked: Sequence[Sequence[int]], wanted: Sequence[set[int]]) -> dict[str, float]:
    """Means over the photos: P@1, R@3 (of min(3, n)), mAP, and the share that is ranked at all."""
    sums = dict.fromkeys(("P@1", "R@3", "mAP", "pool"), 0.0)
    for concepts, right in zip(ranked, wanted, strict=True):
        hits = np.array([concept in right for concept in concepts] or [False])
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        sums["P@1"] += hits[0]
        sums["R@3"] += hits[:3].sum() / min(3, len(right))
        sums["mAP"] += (precision * hits).sum() / len(right)
        sums["pool"] += hits.sum() / len(right)
    return {name: float(value / len(wanted)) for name, value in sums.items()}


def recovery(task: Task, options: dict[str, Any]) -> dict[str, float]:
    """What the captions left out, found again."""
    own = task.corpus.captions.to_lists()
    rows = task.asked
    ranked = [
        [concept for concept in concepts if concept not in own[row]]
        for row, concepts in zip(rows, archives(task, rows, options), strict=True)
    ]
    return measure(ranked, [task.missing[row] for row in rows])


def own_captions(task: Task, options: dict[str, Any]) -> dict[str, float]:
    """The photos' own captions, found by those that are not asked about: for choosing constants."""
    named = task.corpus.captions.lengths > 0
    rows = np.setdiff1d(np.flatnonzero(named), task.asked)
    own = task.corpus.captions.gather(rows).to_lists()
    return measure(archives(task, rows, options), [set(concepts) for concepts in own])


def main() -> None:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.environ.get("COCU_REAL_DATA")
    parser.add_argument("--data", type=Path, default=Path(default) / "real-clip" if default else None)
    parser.add_argument("--own", action="store_true", help="the measure that the constants were chosen by")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.data is None:
        parser.error("say where real-clip is: --data FOLDER, or set COCU_REAL_DATA to the folder it is in")
    with tempfile.TemporaryDirectory() as work:
        task = load_task(given.data, Path(work))
        measured = {
            name: (own_captions if given.own else recovery)(task, options)
            for name, options in SETTINGS.items()
        }
    base = measured[BASELINE]
    print(f"{'':22s}" + "".join(f"{name:>8s}" for name in base) + "   R@3 x   mAP x")
    for name, values in measured.items():
        ratios = "".join(f"{values[which] / base[which]:8.2f}" for which in ("R@3", "mAP"))
        print(f"{name:22s}" + "".join(f"{value:8.3f}" for value in values.values()) + ratios)
    if given.out:
        given.out.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
