"""Archives of many synthetic embeddings while executors are killed at random, for as long as asked.

    python -m tests.faults.soak --minutes 30 --rows 1000000

An undisturbed run is made first. Then the archives are built again and again on a standalone cluster of real
processes until the time is over, each time compared with the undisturbed ones row for row.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from spark_jobs.engine.session import open_session
from storage import tables
from tests import harness
from tests.curation.synthetic import unit
from tests.faults import kills
from tests.faults.calm import finish, run_here, start, workspace_with

NAMES = ("image_embeddings", "concepts", "pair_concepts", "archives")
_FILE_ROWS = 50_000


@dataclass
class Synthetic:
    """A corpus of vectors and captions, its configuration, and the workspace of the undisturbed run."""

    folder: Path
    config: Path
    rows: int

    @property
    def calm(self) -> Path:
        """Workspace of the undisturbed run."""
        return self.folder / "calm"


def write_corpus(folder: Path, rows: int, dimension: int, concepts: int = 1000, seed: int = 0) -> Path:
    """Clustered vectors with captions of concepts near to them, as .npy and Parquet; the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    source = np.random.default_rng(seed)
    centres = unit(source.normal(size=(max(8, rows // 500), dimension)))
    words = _words(concepts)
    (folder / "words.txt").write_text("\n".join(words) + "\n")
    np.save(folder / "words.npy", unit(source.normal(size=(concepts, dimension)) + 0.5))
    for number, first in enumerate(range(0, rows, _FILE_ROWS)):
        count = min(_FILE_ROWS, rows - first)
        group = source.integers(len(centres), size=count)
        noise = source.normal(size=(count, dimension)).astype(np.float32) * 0.6 / np.sqrt(dimension)
        np.save(folder / f"vectors-{number:05d}.npy", unit(centres[group] + noise).astype(np.float16))
        near = (group[:, None] * 7919 + source.integers(20, size=(count, 4)) ** 2) % concepts
        captions = [f"a {words[a]}, {words[b]} with {words[c]} and {words[d]}" for a, b, c, d in near]
        pq.write_table(pa.table({"caption": captions}), folder / f"captions-{number:05d}.parquet")
    corpus = {
        "name": "soak",
        "format": "embeddings",
        "path": f"{folder}/vectors-*.npy",
        "metadata": f"{folder}/captions-*.parquet",
    }
    return harness.write_config(
        folder,
        folder,
        ("ViT-B-16", ""),
        rows_per_part=max(50, min(2500, rows // 40)),
        corpora=[corpus],
        concepts={"vocabulary": f"{folder}/words.txt", "embeddings": f"{folder}/words.npy"},
        index={"kind": "auto"},
        archives={"top": 16},
    )


def _words(count: int) -> list[str]:
    """Words of syllables that no rule of English turns into another."""
    syllables = [f"{consonant}{vowel}" for consonant in "bdfgklmnprtv" for vowel in "aiou"]
    return [
        f"{syllables[number % 48]}{syllables[number // 48 % 48]}{syllables[number // 2304 % 48]}x"
        for number in range(count)
    ]


def prepare(session: SparkSession, folder: Path, rows: int, dimension: int) -> Synthetic:
    """Write the corpus and run the jobs up to the archives, undisturbed."""
    corpus = Synthetic(folder, write_corpus(folder / "corpus", rows, dimension), rows)
    for job in ("import_embeddings", "mine_concepts", "fit_probe", "build_index", "build_archives"):
        if said := run_here(session, job, corpus.config, corpus.calm):
            raise AssertionError(f"{job}: {said}")
    return corpus


def part_digests(workspace: Path, table: str) -> dict[str, str]:
    """Part name -> hash of all its rows and values, in the order of the table."""
    manifest = tables.read_manifest(str(workspace), table)
    found = {}
    for part in manifest.parts:
        rows = tables.read_file(tables.join(manifest.folder, part.file)).combine_chunks()
        digest = hashlib.sha256(str(rows.schema).encode())
        for batch in rows.to_batches():
            digest.update(batch.serialize())
        found[part.name] = digest.hexdigest()
    return found


def keys_of(workspace: Path) -> Iterator[str]:
    """Keys of the archives."""
    for batch in tables.iterate_batches(tables.read_manifest(str(workspace), "archives"), ["key"]):
        yield from batch.column(0).to_pylist()


@dataclass
class Round:
    """One disturbed run."""

    kills: int
    found: int
    doubled: int
    differing: int
    seconds: float


def disturbed_run(corpus: Synthetic, workspace: Path, url: str, every: float, chance: random.Random) -> Round:
    """Build the archives while executors are killed about every ``every`` seconds; compare."""
    workspace_with(corpus.calm, workspace, (*NAMES[:-1], "index", "probe"))
    log = workspace.with_suffix(".log")
    options = ["--conf", "spark.executor.memory=1g", "--conf", "spark.task.maxFailures=100"]
    begun = time.monotonic()
    driver = start(
        harness.submit("build_archives", corpus.config, workspace, master=url, options=options), log
    )
    killed, due = 0, begun + every * chance.uniform(0.2, 1.0)
    while driver.poll() is None:
        if time.monotonic() >= due:
            # Now one executor, now all at once.
            for _ in range(chance.choice((1, 1, 2))):
                killed += kills.kill_executor(url)
            due = time.monotonic() + every * chance.uniform(0.5, 1.5)
        time.sleep(0.2)
    finish(driver, log)
    seconds = time.monotonic() - begun
    calm, stormy = part_digests(corpus.calm, "archives"), part_digests(workspace, "archives")
    differing = sum(calm.get(name) != stormy.get(name) for name in {*calm, *stormy})
    differing += list(calm) != list(stormy)
    keys = list(keys_of(workspace))
    return Round(killed, len(keys), len(keys) - len(set(keys)), differing, seconds)


def soak(corpus: Synthetic, minutes: float, every: float, seed: int) -> bool:
    """Rounds until the time is over; prints each; whether all are well and something was killed."""
    chance, end = random.Random(seed), time.monotonic() + 60 * minutes
    rounds: list[Round] = []
    with harness.standalone_cluster(
        corpus.folder / "cluster", [harness.Worker(memory="2g"), harness.Worker(memory="2g")]
    ) as url:
        while time.monotonic() < end:
            done = disturbed_run(corpus, corpus.folder / "stormy", url, every, chance)
            rounds.append(done)
            print(
                f"round {len(rounds)}: {done.seconds:.0f} s, {done.kills} executors killed, {corpus.rows:,} rows "
                f"expected, {done.found:,} found, {done.doubled} doubled, {done.differing} parts differ; "
                f"{max(0.0, end - time.monotonic()) / 60:.1f} min to go",
                flush=True,
            )
    killed = sum(done.kills for done in rounds)
    well = killed > 0 and all(
        (done.found, done.doubled, done.differing) == (corpus.rows, 0, 0) for done in rounds
    )
    print(
        f"soak: {len(rounds)} rounds, {sum(done.seconds for done in rounds) / 60:.1f} min of disturbed work, "
        f"{killed} executors killed, {sum(done.found for done in rounds):,} rows compared: "
        f"{'ok' if well else 'NOT WELL'}"
    )
    return well


def main() -> None:
    """Entry of python -m tests.faults.soak."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=30, help="time of disturbed work (default 30)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="embeddings (default 1,000,000)")
    parser.add_argument("--dimension", type=int, default=512, help="of the embeddings (default 512)")
    parser.add_argument("--every", type=float, default=120, help="mean seconds between kills (default 120)")
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    parser.add_argument("--folder", type=Path, help="for 8 GB of data, kept; default: temporary, removed")
    arguments = parser.parse_args()
    from configs.schema import CocuConfig, SparkConfig

    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="cocu-soak-"))
        )
        shutil.rmtree(folder / "stormy", ignore_errors=True)
        conf = CocuConfig(spark=SparkConfig(master="local[2]", app_name="cocu-soak"))
        session = open_session(conf)
        begun = time.monotonic()
        corpus = prepare(session, folder, arguments.rows, arguments.dimension)
        session.stop()
        print(f"undisturbed run: {time.monotonic() - begun:.0f} s", flush=True)
        well = soak(corpus, arguments.minutes, arguments.every, arguments.seed)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
