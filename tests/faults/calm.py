"""The corpus that all faults are done to, and what an undisturbed run makes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.loading import load_config
from spark_jobs.engine.entry import check_workspace
from tests import harness

CURATED = ("pairs", "image_embeddings", "concepts", "pair_concepts", "archives")
SECRETS = {
    "environment": "hush-environment-4f1c",
    "spark-submit": "hush-submit-9b2e",
    "configuration": "hush-configuration-77aa",
}


@dataclass
class Outcome:
    """A line of the fault table."""

    fault: str
    tries: int
    expected: int
    found: int
    doubled: int
    verdict: str = "ok"
    note: str = ""

    @property
    def well(self) -> bool:
        """Nothing lost, nothing twice, and the rest as promised."""
        return self.verdict == "ok" and self.expected == self.found and self.doubled == 0


@dataclass
class Corpus:
    """The shared input of the faults, and the workspace ``calm`` of an undisturbed run."""

    folder: Path
    config: Path
    samples: int
    output: str

    @property
    def calm(self) -> Path:
        """Workspace of the undisturbed run."""
        return self.folder / "calm"


def prepare(folder: Path, shards: int = 6, samples: int = 50) -> Corpus:
    """Write the corpus and run the pipeline over it, undisturbed, with credentials in all usual places."""
    # More layers than a tiny model needs, so that there is time to kill what computes it.
    clip = harness.write_tiny_clip(folder / "clip", slow_layers=6)
    count = harness.write_shards(folder / "shards", shards, samples)
    config = harness.write_config(
        folder, folder / "shards", clip, embed={"batch_size": 4}, spark={"units_per_wave": 8}
    )
    secret = f"spark.conf={{spark.hadoop.fs.s3a.session.token: {SECRETS['configuration']}}}"
    options = ["--conf", f"spark.hadoop.fs.s3a.secret.key={SECRETS['spark-submit']}"]
    command = harness.submit("pipeline", config, folder / "calm", secret, options=options)
    done = harness.run(command, timeout=600, AWS_SECRET_ACCESS_KEY=SECRETS["environment"])
    return Corpus(folder, config, count, done.stdout + done.stderr)


def workspace_with(calm: Path, workspace: Path, names: Sequence[str]) -> Path:
    """A new workspace that holds some tables of an undisturbed one (hard links: files are never changed)."""
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir(parents=True)
    for name in names:
        copy = os.link if calm.stat().st_dev == workspace.stat().st_dev else shutil.copy2
        shutil.copytree(calm / name, workspace / name, copy_function=copy)
    return workspace


def compare(
    calm: Path, workspace: Path, fault: str, tries: int, names: Sequence[str] = CURATED, note: str = ""
) -> Outcome:
    """The outcome of a fault: the tables against those of the undisturbed run, row for row."""
    try:
        rows = harness.table_rows(workspace, names[-1], ["key"])
    except UserError as error:
        return Outcome(fault, tries, -1, 0, 0, f"no table: {error}", note)
    expected = harness.table_rows(calm, names[-1], ["key"]).num_rows
    outcome = Outcome(fault, tries, expected, rows.num_rows, harness.duplicates(rows), note=note)
    try:
        harness.assert_same_tables(calm, workspace, names)
    except AssertionError as error:
        outcome.verdict = f"differs: {error}"
    return outcome


def run_here(session: SparkSession, job: str, config: Path, workspace: Path, *overrides: str) -> str:
    """Run a job in this process as its entry does; "" or the user's error."""
    module = import_module(f"spark_jobs.{job}")
    try:
        options = load_config(str(config), [f"workspace={workspace}", *overrides])
        check_workspace(options)
        module.check(options)
        module.run(session, options)
    except UserError as error:
        return str(error)
    return ""


def start(command: Sequence[str], log: Path, **changes: str) -> subprocess.Popen[bytes]:
    """Start a driver in a process group of its own, its output in a file."""
    with log.open("wb") as stream:
        return subprocess.Popen(
            harness.tied(command),
            stdout=stream,
            stderr=stream,
            env=harness.environment(**changes),
            cwd=harness.ROOT,
            start_new_session=True,
        )


def finish(driver: subprocess.Popen[bytes], log: Path, seconds: float = 300) -> None:
    """Wait for a driver that must succeed."""
    try:
        code = driver.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        harness.kill_tree(driver.pid)
        raise AssertionError(f"not done after {seconds} s\n{log.read_text()[-4000:]}") from None
    if code:
        raise AssertionError(f"exit code {code}\n{log.read_text()[-4000:]}")
