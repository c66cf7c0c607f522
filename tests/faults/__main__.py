"""Does every fault to the jobs and prints what was found: `make fault-test`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from configs.schema import CocuConfig, SparkConfig
from spark_jobs.engine.session import open_session
from tests import harness
from tests.faults import broken, calm, kills, mismatch, poison, soak, storage
from tests.faults.calm import Outcome

_WIDTHS = (40, 6, 9, 9, 7)

_ALIKE = "duplicates.similarity=0.8"  # some of the vectors are


def main() -> None:
    """Entry of python -m tests.faults."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=4, help="executors killed in each job (default 4)")
    parser.add_argument(
        "--rows", type=int, default=40_000, help="embeddings of the archive job (default 40,000)"
    )
    arguments = parser.parse_args()
    config = CocuConfig(spark=SparkConfig(master="local[2]", app_name="cocu-faults"))
    session = open_session(config)
    with tempfile.TemporaryDirectory(prefix="cocu-faults-") as name:
        folder = Path(name)
        scratch = folder / "scratch"
        scratch.mkdir()
        print("undisturbed runs ...", file=sys.stderr, flush=True)
        corpus = calm.prepare(folder / "corpus", samples=120)
        vectors = soak.prepare(session, folder / "vectors", arguments.rows, 32)
        names = ("pairs", "image_embeddings")
        calm.run_here(session, "find_duplicates", vectors.config, vectors.calm, _ALIKE)
        clip = (str(next((corpus.folder / "clip").glob("*.json"))), "none")
        with harness.standalone_cluster(scratch / "cluster") as url:
            faults: list[Callable[[], Outcome]] = [
                lambda: kills.executor_killed(
                    corpus.calm, corpus.config, scratch, url, "embed_images", names, arguments.kills
                ),
                lambda: kills.executor_killed(
                    vectors.calm, vectors.config, scratch, url, "build_archives", soak.NAMES, arguments.kills
                ),
                lambda: kills.worker_frozen(corpus, scratch, url),
                lambda: kills.driver_killed(
                    corpus.calm, corpus.config, scratch, "embed_images", names, (1, 8, 16, 24)
                ),
                lambda: kills.driver_killed(
                    vectors.calm, vectors.config, scratch, "build_archives", soak.NAMES, (1, 8, 16, 24)
                ),
                lambda: kills.duplicates_killed(vectors.calm, vectors.config, scratch, _ALIKE),
                lambda: kills.two_runs(corpus, scratch),
                lambda: storage.disk_full(session, corpus, scratch),
                lambda: storage.read_only(session, corpus, scratch),
                lambda: broken.broken_shards(session, clip, scratch),
                lambda: poison.poisoned_files(corpus, scratch),
                lambda: mismatch.executor_differs(corpus, scratch),
            ]
            well = _table(faults)
        session.stop()
    sys.exit(0 if well else 1)


def _table(faults: list[Callable[[], Outcome]]) -> bool:
    _line("fault", "tries", "expected", "found", "doubled", "verdict")
    well = True
    for number, fault in enumerate(faults):
        begun = time.monotonic()
        try:
            outcome = fault()
        except Exception as error:  # the other faults are still to be tried
            text = " ".join(str(error).split())[-300:]
            outcome = Outcome(f"fault {number + 1}", 1, -1, 0, 0, f"{type(error).__name__}: {text}")
        verdict = f"{outcome.verdict} ({outcome.note})" if outcome.note else outcome.verdict
        counts = (outcome.tries, outcome.expected, outcome.found, outcome.doubled)
        _line(
            outcome.fault, *(f"{count:,}" for count in counts), f"{verdict}; {time.monotonic() - begun:.0f} s"
        )
        well = well and outcome.well
    print("nothing lost, nothing twice" if well else "NOT WELL")
    return well


def _line(*cells: str) -> None:
    padded = [
        cell.ljust(width) if number == 0 else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=False))
    ]
    print("  ".join([*padded, cells[-1]]), flush=True)


if __name__ == "__main__":
    main()
