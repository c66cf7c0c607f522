"""The faults, each as a function that provokes it with real processes and returns what was found.

`make fault-test` runs all and prints the table; the tests run them too and assert on the same outcome.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults import harness

CURATED = ("pairs", "image_embeddings", "concepts", "pair_concepts", "archives")


@dataclass
class Outcome:
    """A line of the fault table."""

    fault: str
    tries: int
    expected: int
    found: int
    doubled: int
    verdict: str
    note: str = ""

    @property
    def well(self) -> bool:
        """Nothing lost, nothing twice, and the rest as promised."""
        return self.verdict == "ok" and self.expected == self.found and self.doubled == 0


@dataclass
class Corpus:
    """The shared input of all faults, and the workspace of an undisturbed run."""

    folder: Path
    config: Path
    samples: int

    @property
    def calm(self) -> Path:
        """Workspace of the undisturbed run."""
        return self.folder / "calm"


def prepare(folder: Path, shards: int = 6, samples: int = 120, slow_layers: int = 6) -> Corpus:
    """Write the corpus and run the pipeline over it undisturbed."""
    clip = harness.write_tiny_clip(folder / "clip", slow_layers)
    count = harness.write_shards(folder / "shards", shards, samples)
    config = harness.write_config(
        folder, folder / "shards", clip, embed={"batch_size": 4}, spark={"units_per_wave": 8}
    )
    corpus = Corpus(folder, config, count)
    harness.run(harness.submit("pipeline", config, corpus.calm))
    return corpus


def _copy_tables(corpus: Corpus, name: str, tables: tuple[str, ...]) -> Path:
    """A new workspace that holds the first tables of the undisturbed one."""
    workspace = corpus.folder / name
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir()
    for table in tables:
        shutil.copytree(corpus.calm / table, workspace / table)
    return workspace


def _outcome(
    corpus: Corpus, workspace: Path, fault: str, tries: int, tables: tuple[str, ...] = CURATED, note: str = ""
) -> Outcome:
    verdict = "ok"
    try:
        harness.assert_same_tables(corpus.calm, workspace, tables)
    except AssertionError as error:
        verdict = f"differs: {error}"
    rows = harness.table_rows(workspace, tables[-1], ["key"])
    expected = harness.table_rows(corpus.calm, tables[-1], ["key"]).num_rows
    return Outcome(fault, tries, expected, rows.num_rows, harness.duplicates(rows), verdict, note)


def executor_killed(corpus: Corpus, job: str, table: str, before: tuple[str, ...], times: int = 2) -> Outcome:
    """kill -9 an executor while it works, twice in a row; Spark starts another."""
    workspace = _copy_tables(corpus, f"executor-{job}", before)
    killed = 0
    with harness.standalone_cluster(corpus.folder / f"cluster-{job}", workers=2) as master:
        options = ["--conf", "spark.executor.memory=512m", "--conf", "spark.task.maxFailures=8"]
        command = harness.submit(
            job, corpus.config, workspace, "spark.units_per_wave=6", master=master, options=options
        )
        log = (corpus.folder / f"executor-{job}.log").open("wb")
        driver = subprocess.Popen(
            command, stdout=log, stderr=log, env=harness.environment(), cwd=harness.ROOT
        )
        port = master.rpartition(":")[2]
        while driver.poll() is None and killed < times:
            mine = [process for process in harness.executors() if f":{port}" in " ".join(process.cmdline())]
            working = [process for process in mine if process.children(recursive=True)]
            if working and (killed == 0 or harness.committed_units(workspace, table) > 0):
                time.sleep(0.3)
                harness.kill_all(working[:1])
                killed += 1
                time.sleep(1.0)
            time.sleep(0.05)
        code = driver.wait(timeout=300)
    if code:
        raise AssertionError((corpus.folder / f"executor-{job}.log").read_text()[-4000:])
    outcome = _outcome(corpus, workspace, f"executor killed in {job}", killed, (*before, table))
    if killed < times:
        outcome.verdict = f"only {killed} kills before the job ended"
    return outcome


def driver_killed(
    corpus: Corpus, job: str, table: str, before: tuple[str, ...], waves: tuple[int, ...] = (1, 12)
) -> Outcome:
    """kill -9 the driver inside a wave; the next run goes on; nobody saw half a table."""
    workspace = _copy_tables(corpus, f"driver-{job}", before)
    seen_early = 0
    for units in waves:
        command = harness.submit(job, corpus.config, workspace, "spark.units_per_wave=4")
        driver = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=harness.environment(), cwd=harness.ROOT,
            start_new_session=True,
        )  # fmt: skip
        while driver.poll() is None and harness.committed_units(workspace, table) < units:
            seen_early += (workspace / table / "_manifest.json").exists()
            time.sleep(0.02)
        harness.kill_tree(driver.pid)
        driver.wait()
    done = harness.committed_units(workspace, table)
    finished = harness.run(harness.submit(job, corpus.config, workspace))
    outcome = _outcome(corpus, workspace, f"driver killed in {job}", len(waves), (*before, table))
    if seen_early or (workspace / table / "_lock.json").exists():
        outcome.verdict = "a manifest was visible before the table was complete"
    elif f"goes on; {done} of" not in finished.stdout:
        outcome.verdict = f"did not go on after {done} units: {finished.stdout[-300:]}"
    outcome.note = f"{done} units kept"
    return outcome


def two_runs(corpus: Corpus) -> Outcome:
    """Two runs of one job on one workspace: one works, the other says so and stops with code 2."""
    before = ("pairs",)
    workspace = _copy_tables(corpus, "two-runs", before)
    command = harness.submit("embed_images", corpus.config, workspace, "spark.units_per_wave=2")
    processes = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=harness.environment(),
            cwd=harness.ROOT,
        )
        for _ in range(2)
    ]
    results = [(process.communicate(timeout=300), process.returncode) for process in processes]
    codes = sorted(code for _, code in results)
    said = any("another run of embed_images is at work" in error for (_, error), code in results if code == 2)
    outcome = _outcome(corpus, workspace, "two runs at once", 1, ("pairs", "image_embeddings"))
    if codes != [0, 2] or not said:
        outcome.verdict = f"exit codes {codes}, the message {'came' if said else 'did not come'}"
    return outcome


def disk_full(corpus: Corpus) -> Outcome:
    """A file-size limit stands in for a full disk (the write call fails alike); old tables stay intact."""
    before = ("pairs", "image_embeddings")
    workspace = _copy_tables(corpus, "disk-full", before)
    old = harness.table_rows(workspace, "image_embeddings")

    def small_disk() -> None:
        # Larger than manifests and Java's own files need, smaller than the part files below.
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    command = harness.submit("ingest", corpus.config, workspace, "overwrite=true", "ingest.rows_per_part=100")
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=harness.ROOT, preexec_fn=small_disk,
        env=harness.environment(JAVA_TOOL_OPTIONS="-XX:-UsePerfData"),
    )  # fmt: skip
    outcome = _outcome(corpus, workspace, "disk full", 1, before)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    if done.returncode != 2 or not any("free space" in line for line in lines):
        outcome.verdict = f"exit code {done.returncode}: {done.stderr[-400:]}"
    elif not harness.table_rows(workspace, "image_embeddings").equals(old):
        outcome.verdict = "an old table changed"
    outcome.note = lines[0][:100] if lines else ""
    return outcome


def hung_shard(corpus: Corpus) -> Outcome:
    """A shard that never delivers (a pipe nobody writes to): the others are done meanwhile, and once it is gone the job ends."""
    shards = corpus.folder / "hung-shards"
    shutil.rmtree(shards, ignore_errors=True)
    shutil.copytree(corpus.folder / "shards", shards)
    pipe = shards / "zz.tar"
    os.mkfifo(pipe)
    config = corpus.folder / "hung"
    config.mkdir(exist_ok=True)
    path = harness.write_config(config, shards, ("ViT-B-32", "none"), spark={"units_per_wave": 8})
    workspace = corpus.folder / "hung-workspace"
    shutil.rmtree(workspace, ignore_errors=True)
    driver = subprocess.Popen(
        harness.submit("ingest", path, workspace, "spark.units_per_wave=4"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=harness.environment(), cwd=harness.ROOT,
    )  # fmt: skip
    try:
        harness.wait_for(
            lambda: harness.committed_units(workspace, "pairs") >= 4, 120, "the other shards were not done"
        )
    finally:
        writer = os.open(pipe, os.O_WRONLY)  # an empty stream: the shard turns out to be no tar
        os.close(writer)
    output, errors = driver.communicate(timeout=120)
    rows = harness.table_rows(workspace, "pairs", ["key"])
    verdict = "ok" if driver.returncode == 0 else f"exit code {driver.returncode}: {errors[-300:]}"
    if "1 rejected" not in output:
        verdict = f"the hung shard is not among the rejects: {output[-300:]}"
    return Outcome("hung shard", 1, corpus.samples, rows.num_rows, harness.duplicates(rows), verdict)
