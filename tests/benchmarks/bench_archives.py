"""How fast archives are built, beside the search that they cannot do without, and ranking beside a loop.

A synthetic corpus (default: 100,000 images of 512 dimensions, 3,805 concepts, four a caption), one core.
Rates are of CPU time, so that other work on the machine shows less.

- bare search: the same index, lists and L, a unit's pairs at a time
- task: what a Spark task of build_archives does, from the Parquet parts to the written archives
- ranking: from known neighbours to scores; beside it a loop over images and concepts with NumPy
- neighbours alone, with ``archives.duplicate_similarity`` and without
- all of these with the paper's ranking, L = 8, and with the calibrated one: L = 128, probe, whole vocabulary

``python -m tests.benchmarks.bench_archives [--rows 100000] [--kind auto] [--noise 1.2] [--out FILE.json]``
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from configs.schema import ArchivesConfig
from curation.archives import archives_of_neighbours, neighbours_of
from curation.index import OpenIndex, search
from curation.moments import concept_sums, image_moments
from curation.probe import Probe, write_probe
from curation.ranking import rank
from spark_jobs.archiving.plan import Plan
from spark_jobs.build_archives import archive_unit
from storage import tables
from storage.units import Unit
from storage.vectors import vectors_to_column
from tests.benchmarks.record import Entry, record
from tests.curation.synthetic import Corpus, build, make_corpus, probe_of

UNIT_ROWS = 2500
COPIES = 0.96  # archives.duplicate_similarity


def store_units(corpus: Corpus, workspace: Path, rows: int, plan: Plan) -> list[Unit]:
    """The corpus' first rows as parts of image_embeddings and pair_concepts, and the units that read them."""
    units = []
    for start in range(0, rows, UNIT_ROWS):
        part = slice(start, min(rows, start + UNIT_ROWS))
        keys = corpus.keys[part]
        vectors = vectors_to_column(corpus.vectors[part], corpus.vectors.shape[1])
        words = corpus.captions.gather(np.arange(part.start, part.stop)).to_list_array()
        addresses = []
        for name, table in (
            ("image_embeddings", pa.table({"key": keys, "embedding": vectors})),
            ("pair_concepts", pa.table({"key": keys, "concept_ids": words})),
        ):
            file = f"{start:09d}.parquet"
            tables.write_part(str(workspace / name), file, table, table.schema)
            addresses.append(str(workspace / name / file))
        units.append(Unit(f"corpus/{start:09d}", len(keys), (*addresses, plan, None)))
    return units


def loop_ranking(
    index: OpenIndex, anchors: np.ndarray, rows: np.ndarray, captions: list[list[int]]
) -> list[list[tuple[int, float]]]:
    """The paper's formula image by image, concept by concept."""
    (lists,) = index.splits[0].lists.segments
    vectors = np.asarray(lists.vectors)[np.argsort(lists.rows)]
    ranked = []
    for anchor, neighbours in zip(anchors, rows, strict=True):
        near = [row for row in neighbours.tolist() if row >= 0]
        named = [set(captions[row]) for row in near]
        candidates = sorted(set().union(*named))
        values = {}
        for concept in candidates:
            text = index.concept_embeddings[concept]
            using = [row for row, words in zip(near, named, strict=True) if concept in words]
            values[concept] = np.append(vectors[using].astype(np.float32) @ text, anchor @ text)
        highest = max((q.max() for q in values.values()), default=1.0)
        scores = [(concept, float(q[-1] / q.mean() + q[-1] / highest)) for concept, q in values.items()]
        ranked.append(sorted(scores, key=lambda entry: (-entry[1], entry[0])))
    return ranked


def largest_difference(
    index: OpenIndex, anchors: np.ndarray, rows: np.ndarray, near: np.ndarray, loop: list[Any]
) -> float:
    """Between the scores of both rankings, relative to their size."""
    ranked = rank(index, anchors, rows, near)
    worst, offsets = 0.0, ranked.concepts.offsets
    for number, expected in enumerate(loop):
        part = slice(offsets[number], offsets[number + 1])
        found = dict(zip(ranked.concepts.values[part].tolist(), ranked.scores[part].tolist(), strict=True))
        assert found.keys() == dict(expected).keys()
        worst = max([worst, *(abs(found[c] - score) / max(1.0, abs(score)) for c, score in expected)])
    return worst


def rate(work: Callable[[], object], rows: int, rounds: int) -> float:
    """Rows a CPU second (of all threads) in the fastest round, after one that is not counted."""
    work()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return rows / min(seconds)


def bare_search(index: OpenIndex, anchors: np.ndarray, neighbours: int) -> None:
    """The search alone, a unit's pairs at a time, the anchor itself among the neighbours."""
    for start in range(0, len(anchors), UNIT_ROWS):
        search(index, anchors[start : start + UNIT_ROWS], neighbours + 1)


def measure_ranking(
    ranking: str, corpus: Corpus, index: OpenIndex, probe: Probe, asked: int, rounds: int, work: Path
) -> dict[str, float]:
    """Rates with one ranking, at its own L."""
    options = ArchivesConfig(ranking=ranking, device="cpu")
    place = str(work), "bench", "bench"
    plan = Plan(place, place if ranking == "calibrated" else None, options, index.nprobe)
    units = store_units(corpus, work, asked, plan)
    anchors = corpus.vectors[:asked].astype(np.float32)
    keys, batch, neighbours = corpus.keys[:asked], options.batch_size, options.retrieved
    near = [
        search(index, anchors[start : start + batch], neighbours, keys[start : start + batch])
        for start in range(0, asked, batch)
    ]

    def tasks() -> None:
        for unit in units:
            archive_unit(unit, str(work / "archives"), "bench")

    def ranked() -> None:
        for number, (found, similar) in enumerate(near):
            part = slice(number * batch, number * batch + batch)
            rank(index, anchors[part], found, similar, ranking, probe, proposals=options.proposals)

    def archived() -> None:
        for number, (found, similar) in enumerate(near):
            part = slice(number * batch, number * batch + batch)
            archives_of_neighbours(keys[part], anchors[part], found, similar, index, options, probe=probe)

    def neighbours_alone(similarity: float | None) -> None:
        neighbours_of(keys[:few], anchors[:few], index, replace(options, duplicate_similarity=similarity))

    few = min(asked, 2 * UNIT_ROWS)
    search_rate = rate(lambda: bare_search(index, anchors, neighbours), asked, rounds)
    job = rate(tasks, asked, rounds)
    return {
        f"{ranking}, L = {neighbours}: search alone, pairs/s": search_rate,
        f"{ranking}: task, pairs/s": job,
        f"{ranking}: ranking, pairs/s": rate(ranked, asked, rounds),
        f"{ranking}: ranking, clusters and columns, pairs/s": rate(archived, asked, rounds),
        f"{ranking}: task over search alone": job / search_rate,
        f"{ranking}: neighbours, copies counted once, pairs/s": rate(
            lambda: neighbours_alone(COPIES), few, rounds
        ),
        f"{ranking}: neighbours, every copy counted, pairs/s": rate(
            lambda: neighbours_alone(None), few, rounds
        ),
    }


def measure(
    rows: int, kind: str, noise: float, asked: int, rounds: int, work: Path
) -> dict[str, float | str]:
    """All figures."""
    corpus = make_corpus(rows, d=512, concepts=3_805, noise=noise, common=1.0)
    index = build(corpus, work / "index" / "bench", kind, queries=200)
    probe = probe_of(corpus)
    write_probe(work / "probe" / "bench", probe)
    figures: dict[str, float | str] = {
        "index": f"{index.kind}, nprobe {index.nprobe}, chosen for recall@8 0.99",
        "sums for the probe, pairs/s": rate(lambda: corpus_sums(corpus, asked), asked, rounds),
    }
    for ranking in ("paper", "calibrated"):
        figures.update(measure_ranking(ranking, corpus, index, probe, asked, rounds, work))
    captions, few = corpus.captions.to_lists(), min(1000, asked)
    anchors = corpus.vectors[:few].astype(np.float32)
    found, similar = search(index, anchors, 8, corpus.keys[:few])
    by_loop = rate(lambda: loop_ranking(index, anchors, found, captions), few, rounds)
    figures["paper: ranking by a loop, pairs/s"] = by_loop
    figures["paper: ranking over loop"] = figures["paper: ranking, pairs/s"] / by_loop
    figures["paper: largest difference of scores"] = largest_difference(
        index, anchors, found, similar, loop_ranking(index, anchors, found, captions)
    )
    return figures


def corpus_sums(corpus: Corpus, rows: int) -> None:
    """The one pass over the corpus that the probe is fitted from, a unit at a time."""
    for start in range(0, rows, UNIT_ROWS):
        part = np.arange(start, min(rows, start + UNIT_ROWS))
        image_moments(corpus.vectors[part])
        concept_sums(corpus.vectors[part], corpus.captions.gather(part))


def main() -> None:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000, help="images of the index")
    parser.add_argument("--kind", default="auto", choices=["auto", "flat", "ivf"])
    parser.add_argument(
        "--noise", type=float, default=1.2, help="how far images lie from their group: more lists to visit"
    )
    parser.add_argument("--asked", type=int, default=20_000, help="pairs that are curated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        asked = min(given.asked, given.rows)
        figures = measure(given.rows, given.kind, given.noise, asked, given.rounds, Path(work))
    for what, value in figures.items():
        shown = value if isinstance(value, str) else f"{value:14,.0f}" if value > 1000 else f"{value:14.3g}"
        print(f"{what:52s} {shown}")
    job, ranking = figures["paper: task, pairs/s"], figures["paper: ranking, pairs/s"]
    ours = figures["calibrated: task, pairs/s"]
    bare = f"the search alone, {given.rows:,} x 512, one core"
    record(
        Entry("archive_job", job, "pairs/s", bare, figures["paper: task over search alone"], ">= 0.5"),
        Entry(
            "archive_job_calibrated",
            ours,
            "pairs/s",
            bare,
            figures["calibrated: task over search alone"],
            ">= 0.5",
        ),
        Entry(
            "archive_ranking",
            ranking,
            "pairs/s",
            "a loop over images",
            figures["paper: ranking over loop"],
            ">= 20",
        ),
    )
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
