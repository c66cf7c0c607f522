"""peer_index: autofaiss (PyPI) on the same vectors: time to build, and batch search at equal recall.

autofaiss wants other versions than this project, so it lives in an environment of its own:

    python -m venv /tmp/peer && /tmp/peer/bin/pip install autofaiss
    python -m tests.benchmarks.bench_peer_index --peer /tmp/peer/bin/python [--rows 100000]

Without ``--peer`` (or ``COCU_PEER_PYTHON``) it says so and measures nothing. Both build from the same array on one
core with what they choose by themselves; autofaiss tunes itself to 10 ms a query, the most it can use. Ours visits
as few lists as reach its recall. Processor seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core, in BLAS too

import faiss
import numpy as np

from curation.index import SearchTarget, exact_search, search, tune
from curation.index.search import recall
from tests.benchmarks.bench_search import corpus_of
from tests.benchmarks.clip_like import clip_like, source_of_vectors
from tests.benchmarks.record import Entry, record
from tests.curation.synthetic import build

_PEER = """
import json, sys, time
import faiss, numpy as np
from autofaiss import build_index
faiss.omp_set_num_threads(1)
vectors, queries = (np.load(path) for path in sys.argv[1:3])
start = time.process_time()
index, facts = build_index(
    vectors, save_on_disk=False, metric_type="ip", max_index_query_time_ms=10.0, max_index_memory_usage="4GB",
    current_memory_available="6GB", nb_cores=1, verbose=50,
)
built = time.process_time() - start
faiss.omp_set_num_threads(1)
seconds = []
for _ in range(4):
    start = time.process_time()
    rows = index.search(queries, int(sys.argv[3]))[1]
    seconds.append(time.process_time() - start)
np.save(sys.argv[4], rows)
print(json.dumps({"built": built, "searched": sorted(seconds[1:])[1], "key": str(facts.get("index_key")),
                  "parameters": str(facts.get("index_param"))}))
"""


def peer(
    python: str, vectors: np.ndarray, queries: np.ndarray, neighbours: int, work: Path
) -> tuple[dict, np.ndarray]:
    """What autofaiss took and chose, and the rows that it found."""
    np.save(work / "vectors.npy", vectors.astype(np.float32))
    np.save(work / "queries.npy", queries)
    found = work / "found.npy"
    arguments = [python, "-c", _PEER, work / "vectors.npy", work / "queries.npy", neighbours, found]
    one = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [str(item) for item in arguments], env=one, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1]), np.load(found)


def main() -> None:
    """Measure both and record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", default=os.environ.get("COCU_PEER_PYTHON"), help="Python with autofaiss")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--asked", type=int, default=10_000)
    parser.add_argument("--neighbours", type=int, default=8)
    given = parser.parse_args()
    if not given.peer:
        print("peer_index: skipped: --peer names no Python with autofaiss (see --help)")
        return
    faiss.omp_set_num_threads(1)
    vectors = clip_like(given.rows)
    queries = vectors[np.sort(np.random.default_rng(1).permutation(given.rows)[: given.asked])].astype(
        np.float32
    )
    with tempfile.TemporaryDirectory() as folder:
        said, theirs = peer(given.peer, vectors, queries, given.neighbours, Path(folder))
        start = time.process_time()
        index = build(corpus_of(vectors), Path(folder) / "ours", "ivf", 25_000, given.neighbours)
        built = time.process_time() - start
        few = slice(0, 1000)
        true, _ = exact_search(index, queries[few], given.neighbours)
        reached = recall(theirs[few], true)
        visits = tune(index, SearchTarget(given.neighbours, recall=max(0.5, min(reached, 0.999)))).nprobe
        index = replace(index, nprobe=visits)
        seconds = []
        for _ in range(4):
            start = time.process_time()
            ours, _ = search(index, queries, given.neighbours)
            seconds.append(time.process_time() - start)
    searched = sorted(seconds[1:])[1]
    what = f"autofaiss {said['key']} {said['parameters']}; {given.rows:,} x 512, {source_of_vectors()}"
    at = f"recall@{given.neighbours} {recall(ours[few], true):.4f}, its {reached:.4f}"
    record(
        Entry("peer_index_build", built, "s", what, said["built"] / built, ">= 1"),
        Entry("peer_index_search", 1e6 * searched / given.asked, f"us a query at {at}", what, said["searched"] / searched, ">= 1"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
