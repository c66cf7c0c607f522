"""Processes that die, freeze or come twice: executors, drivers, workers, runs."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from spark_jobs.indexing.copies import LINKS
from storage.units import Part
from tests import harness
from tests.faults.calm import Corpus, Outcome, compare, finish, start, workspace_with

_CLUSTER_OPTIONS = (
    "--conf", "spark.executor.memory=512m", "--conf", "spark.task.maxFailures=20",
)  # fmt: skip


def kill_executor(url: str) -> bool:
    """kill -9 one executor that has a Python worker at work; whether there was one."""
    for executor in harness.executors(url):
        if harness.python_workers(executor):
            harness.kill_all([executor])
            return True
    return False


def executor_killed(
    calm: Path, config: Path, scratch: Path, url: str, job: str, names: Sequence[str], times: int = 2
) -> Outcome:
    """kill -9 an executor once the first wave is committed, then another at once; Spark starts new ones.

    Args:
        calm: workspace of an undisturbed run.
        names: tables that go before, and last the one that the job writes.
        times: executors to kill, one right after the other.
    """
    workspace = workspace_with(calm, scratch / f"executor-{job}", _needed(job, names))
    log, killed = scratch / f"executor-{job}.log", 0
    command = harness.submit(
        job, config, workspace, "spark.units_per_wave=6", master=url, options=_CLUSTER_OPTIONS
    )
    driver = start(command, log)
    while driver.poll() is None and killed < times:
        if harness.committed_units(workspace, names[-1]) > 0:
            killed += kill_executor(url)
        time.sleep(0.02)
    left = harness.committed_units(workspace, names[-1])
    finish(driver, log)
    outcome = compare(calm, workspace, f"executor killed in {job}", killed, names, f"{left} units were done")
    if killed < times:
        outcome.verdict = f"only {killed} kills before the job ended"
    return outcome


def _needed(job: str, names: Sequence[str]) -> list[str]:
    return [*names[:-1], *(["index", "probe"] if job == "build_archives" else [])]


class Watcher:
    """A reader that looks at a table all the time: what a manifest names must be there, whole."""

    def __init__(self, workspace: Path, table: str) -> None:
        self.folder, self.workspace, self.table = workspace / table, workspace, table
        self.faults: list[str] = []
        self._checked: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            try:
                for unit in harness.progress_of(self.workspace, self.table):
                    self._check(unit.parts)
            except Exception as error:  # whatever a reader can trip over is what is looked for
                self.faults.append(f"{type(error).__name__}: {error}")
                return

    def _check(self, parts: Sequence[Part]) -> None:
        for part in parts:
            if part.file not in self._checked:
                rows = pq.read_metadata(self.folder / part.file).num_rows
                assert rows == part.rows, f"{part.file}: {rows} rows, {part.rows} promised"
                self._checked.add(part.file)


def driver_killed(
    calm: Path,
    config: Path,
    scratch: Path,
    job: str,
    names: Sequence[str],
    waves: Sequence[int] = (1, 12),
    size: int = 4,
) -> Outcome:
    """kill -9 the driver right after a commit and in the middle of a wave; the next run goes on.

    Args:
        calm: workspace of an undisturbed run.
        names: tables that go before, and last the one that the job writes.
        waves: committed units at which the driver is killed.
        size: units of a wave.
    """
    workspace = workspace_with(calm, scratch / f"driver-{job}", _needed(job, names))
    folder, log = workspace / names[-1], scratch / f"driver-{job}.log"
    faults: list[str] = []
    done_before = 0
    with Watcher(workspace, names[-1]) as watcher:
        for number, units in enumerate(waves):
            driver = start(harness.submit(job, config, workspace, f"spark.units_per_wave={size}"), log)
            harness.wait_for(
                lambda units=units, driver=driver: driver.poll() is not None
                or harness.committed_units(workspace, names[-1]) >= units,
                300,
                "no wave was committed",
            )
            if number:
                time.sleep(0.1)  # into the next wave
            harness.kill_tree(driver.pid)
            driver.wait()
            faults += _after_kill(folder, size, done_before)
            done_before = harness.committed_units(workspace, names[-1])
        finish(start(harness.submit(job, config, workspace), log), log)
    kept = f"{done_before} units kept"
    outcome = compare(calm, workspace, f"driver killed in {job}", len(waves), names, kept)
    faults += watcher.faults
    if f"goes on; {done_before} of" not in log.read_text():
        faults.append(f"did not go on after {done_before} units")
    if faults:
        outcome.verdict = "; ".join(faults)
    return outcome


def _after_kill(folder: Path, size: int, done_before: int) -> Iterator[str]:
    """What must not be after a kill: a complete table, more than a wave that nobody committed."""
    if (folder / "_manifest.json").exists():
        yield "the table is there although its job was killed"
    named = {part.file for unit in harness.progress_of(folder.parent, folder.name) for part in unit.parts}
    lost = sum(str(file.relative_to(folder)) not in named for file in folder.rglob("*.parquet"))
    # The orphans of earlier kills are still there; they go when the table is complete.
    if lost > size * (2 if done_before else 1):
        yield f"{lost} finished units are to be done again; a wave has {size}"


def duplicates_killed(calm: Path, config: Path, scratch: Path, *overrides: str) -> Outcome:
    """kill -9 the driver of find_duplicates in its search and at the end; the last run finds what an undisturbed one found.

    Args:
        calm: workspace that holds `duplicates` of an undisturbed run with the same overrides.
    """
    workspace = workspace_with(calm, scratch / "driver-duplicates", ("image_embeddings",))
    log, killed = scratch / "driver-duplicates.log", 0
    command = harness.submit("find_duplicates", config, workspace, "spark.units_per_wave=2", *overrides)
    for table, units in ((LINKS, 1), (LINKS, 9), ("duplicates", 2)):
        driver = start(command, log)
        harness.wait_for(
            lambda table=table, units=units, driver=driver: driver.poll() is not None
            or harness.committed_units(workspace, table) >= units,
            300,
            f"nothing of {table} was committed",
        )
        killed += driver.poll() is None
        harness.kill_tree(driver.pid)
        driver.wait()
    finish(start(command, log), log)
    outcome = compare(calm, workspace, "driver killed in find_duplicates", killed, ("duplicates",))
    left = [folder.name for folder in workspace.iterdir() if folder.name.startswith("duplicate_")]
    if left or killed < 3:
        outcome.verdict = f"{killed} kills; left: {', '.join(left) or 'nothing'}"
    return outcome


def two_runs(corpus: Corpus, scratch: Path) -> Outcome:
    """Two runs of one job on one workspace: one works, the other says so and stops with code 2."""
    workspace = workspace_with(corpus.calm, scratch / "two-runs", ("pairs",))
    command = harness.submit("embed_images", corpus.config, workspace, master="local[1]")
    logs = [scratch / f"two-runs-{number}.log" for number in range(2)]
    drivers = [start(command, log) for log in logs]
    codes = [driver.wait(timeout=300) for driver in drivers]
    refused = [log.read_text() for log, code in zip(logs, codes, strict=True) if code == 2]
    outcome = compare(corpus.calm, workspace, "two runs at once", 1, ("pairs", "image_embeddings"))
    if sorted(codes) != [0, 2] or "another run of embed_images is at work" not in refused[0]:
        outcome.verdict = f"exit codes {codes}: {(refused or [''])[0][-300:]}"
    return outcome


def worker_frozen(corpus: Corpus, scratch: Path, url: str) -> Outcome:
    """SIGSTOP to a Python worker: the others go on; Spark's second attempt of its task doubles no row.

    The frozen worker thaws once that attempt is on its way, so that both may write the same part.
    """
    names = ("pairs", "image_embeddings")
    workspace = workspace_with(corpus.calm, scratch / "frozen", names[:1])
    log, port = scratch / "frozen.log", harness.free_port()
    conf = {
        "spark.speculation": "true",
        "spark.speculation.interval": "100ms",
        "spark.speculation.quantile": "0.5",
        "spark.speculation.minTaskRuntime": "1s",
        "spark.ui.enabled": "true",
        "spark.ui.port": str(port),
    }
    options = [item for name, value in conf.items() for item in ("--conf", f"{name}={value}")]
    command = harness.submit(
        "embed_images", corpus.config, workspace, "spark.units_per_wave=12", master=url,
        options=[*_CLUSTER_OPTIONS, *options],
    )  # fmt: skip
    driver = start(command, log)
    frozen = harness.wait_for(lambda: _freeze_one(url) or driver.poll() is not None, 240, "no worker")
    second = isinstance(frozen, psutil.Process) and _second_attempt(port, driver)
    meanwhile = harness.committed_units(workspace, names[1])
    if isinstance(frozen, psutil.Process):
        with contextlib.suppress(psutil.NoSuchProcess):
            frozen.resume()
    finish(driver, log)
    outcome = compare(
        corpus.calm, workspace, "hung task, speculation", 1, names, f"{meanwhile} units done while it hung"
    )
    if not second:
        outcome.verdict = "Spark made no second attempt"
    elif len(list((workspace / names[1]).rglob("*.parquet"))) != len(_parts(workspace, names[1])):
        outcome.verdict = "files of the second attempt were left"
    return outcome


def _parts(workspace: Path, table: str) -> Sequence[object]:
    from storage import tables

    return tables.read_manifest(str(workspace), table).parts


def _freeze_one(url: str) -> psutil.Process | None:
    """Stop a Python worker, if there are two: its task hangs, or the next one that it is given."""
    workers = [worker for executor in harness.executors(url) for worker in harness.python_workers(executor)]
    if len(workers) < 2:
        return None
    workers[0].suspend()
    return workers[0]


def _second_attempt(port: int, driver: subprocess.Popen[bytes], seconds: float = 120) -> bool:
    """Whether Spark starts a speculative attempt while the driver runs."""
    base = f"http://127.0.0.1:{port}/api/v1/applications"
    end = time.monotonic() + seconds
    while time.monotonic() < end and driver.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            (application,) = _json(base)
            stages = f"{base}/{application['id']}/stages"
            for stage in _json(f"{stages}?status=active"):
                tasks = _json(f"{stages}/{stage['stageId']}/{stage['attemptId']}/taskList?length=1000")
                if any(task["speculative"] for task in tasks):
                    return True
        time.sleep(0.1)
    return False


def _json(url: str) -> list[dict]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)
