"""List-major search beside FAISS's own, at equal recall, on vectors that cluster like real ones.

Benchmarks search_list_major (ours over the best of FAISS's settings), search_splits (cost of a pair with 2, 4 and
8 splits over that without) and index_recall. One core; all runs of one comparison take turns in one process.

``python -m tests.benchmarks.bench_search [--rows 100000] [--asked 10000] [--neighbours 8]``
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core, in BLAS too

import faiss
import numpy as np
import pyarrow as pa

from curation.csr import Csr
from curation.index import OpenIndex, exact_search, lists_to_visit, open_index, search
from curation.index.search import recall
from curation.index.spec import row_bytes
from tests.benchmarks.clip_like import clip_like, source_of_vectors
from tests.benchmarks.record import Entry, alternate, record
from tests.curation.faiss_twin import faiss_twin
from tests.curation.synthetic import Corpus, build, unit

_TRIED = 1000  # queries that recall is measured on


def corpus_of(vectors: np.ndarray) -> Corpus:
    """The vectors with captions that name nothing: an index needs some."""
    rows = len(vectors)
    none = Csr(np.zeros(rows + 1, np.int64), np.zeros(0, np.int32))
    words = unit(np.ones((1, vectors.shape[1])))
    statistic = np.ones(1, np.float32)
    keys = pa.array([f"bench/{row // 1000:05d}/{row:09d}" for row in range(rows)])
    return Corpus(keys, vectors, none, pa.array(["nothing"]), words, statistic, statistic)


def best_of_faiss(
    indexes: list[OpenIndex], anchors: np.ndarray, neighbours: int, least: float
) -> tuple[Callable[[], object], str]:
    """FAISS's cheapest setting with that recall: number of lists, and visits, each doubled from 1 and then halved in."""
    tried = anchors[:_TRIED]
    best: tuple[float, Callable[[], object], str] | None = None
    for index in indexes:
        true, _ = exact_search(index, tried, neighbours)
        twin, nlist = faiss_twin(index), len(index.centroids)
        enough = _fewest(
            lambda visits, twin=twin, true=true: recall(_faiss(twin, tried, neighbours, visits), true)
            >= least,
            nlist,
        )

        def run(twin: faiss.Index = twin, visits: int = enough) -> object:
            return _faiss(twin, anchors, neighbours, visits)

        def few(twin: faiss.Index = twin, visits: int = enough) -> object:
            return _faiss(twin, tried, neighbours, visits)

        seconds = alternate(few, few, rounds=3)[0]
        if best is None or seconds < best[0]:
            best = (seconds, run, f"FAISS IVF{nlist},SQfp16 nprobe {enough}")
    assert best is not None
    return best[1], best[2]


def _faiss(twin: faiss.Index, anchors: np.ndarray, neighbours: int, visits: int) -> np.ndarray:
    return twin.search(anchors, neighbours, params=faiss.SearchParametersIVF(nprobe=visits))[1]


def _fewest(enough: Callable[[int], bool], most: int) -> int:
    low, high = 0, 1
    while high < most and not enough(high):
        low, high = high, min(most, 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def measure_search(rows: int, asked: int, neighbours: int, work: Path) -> None:
    """search_list_major and index_recall."""
    corpus = corpus_of(clip_like(rows))
    default = build(corpus, work / "default", "ivf", unit_rows=25_000, neighbours=neighbours, queries=500)
    many = build(
        corpus, work / "many", "ivf", 25_000, neighbours, nlist=3 * len(default.centroids), queries=10
    )
    chosen = np.sort(np.random.default_rng(1).permutation(rows)[:asked])
    anchors = corpus.vectors[chosen].astype(np.float32)
    tried = anchors[:_TRIED]
    found, _ = search(default, tried, neighbours)
    reached = recall(found, exact_search(default, tried, neighbours)[0])
    theirs, setting = best_of_faiss([default, many], anchors, neighbours, reached)
    ours, other, spread = alternate(lambda: search(default, anchors, neighbours), theirs)
    says = f"{setting}, equal recall@{neighbours}; {rows:,} x 512, {source_of_vectors()}, {asked:,} queries at once"
    record(
        Entry("search_list_major", 1e6 * ours / asked, "us a query", says, other / ours, ">= 2", spread),
        Entry("index_recall", reached, f"recall@{neighbours}", f"exact search, nprobe {default.nprobe}", reached, ">= 0.99"),
    )  # fmt: skip


def measure_splits(rows: int, asked: int, neighbours: int, work: Path) -> None:
    """search_splits: the same queries, split after split, each told what those before found; the lists to visit are found once."""
    corpus = corpus_of(clip_like(rows))
    anchors = corpus.vectors[:asked].astype(np.float32)
    whole = build(corpus, work / "whole", "ivf", unit_rows=25_000, neighbours=neighbours, queries=500)
    for splits in (2, 4, 8):
        budget = rows * row_bytes(512) / (splits - 0.5) / 1e9
        folder = build(corpus, work / f"{splits}", "ivf", 25_000, neighbours, budget, queries=10).folder
        parts = [replace(open_index(folder, splits=[n]), nprobe=whole.nprobe) for n in range(splits)]

        def run(parts: list[OpenIndex] = parts) -> object:
            visits, found = lists_to_visit(parts[0], anchors), None
            for part in parts:
                found = search(part, anchors, neighbours, visits=visits, before=found)
            return found

        assert np.array_equal(run()[0], search(whole, anchors, neighbours)[0])
        ours, other, spread = alternate(run, lambda: search(whole, anchors, neighbours), rounds=3)
        says = f"unsplit; {rows:,} x 512, {asked:,} queries at once"
        record(
            Entry(
                f"search_splits_{splits}",
                1e6 * ours / asked,
                "us a query",
                says,
                ours / other,
                "<= 1.3",
                spread,
            )
        )


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--asked", type=int, default=10_000)
    parser.add_argument("--neighbours", type=int, default=8)
    given = parser.parse_args()
    faiss.omp_set_num_threads(1)
    for work in (measure_search, measure_splits):
        with tempfile.TemporaryDirectory() as folder:
            work(given.rows, min(given.asked, given.rows), given.neighbours, Path(folder))


if __name__ == "__main__":
    main()
