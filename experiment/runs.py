"""Runs trainings and their evaluations, some side by side; what is finished is not done again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from configs.errors import UserError
from experiment.plan import Run

__all__ = ["DONE", "run_all", "run_command"]

DONE = "done"
"""Empty file in the folder of a run that is trained and measured."""


def run_command(command: Sequence[str], log: Path | None = None) -> None:
    """Run a command in this environment, its output in ``log`` (or on the terminal).

    Raises:
        UserError: it ended with another exit code than 0.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYSPARK_PYTHON": sys.executable}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    if log is None:
        code = subprocess.run(command, env=environment).returncode
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            code = subprocess.run(
                command, env=environment, stdout=stream, stderr=subprocess.STDOUT
            ).returncode
    if code:
        where = f"see {log}" if log else "its message is above"
        raise UserError(f"experiment: `{' '.join(command[:4])} ...` ended with exit code {code}; {where}")


def run_all(runs: Sequence[Run], common: Sequence[str], jobs: int) -> None:
    """Train and measure every run that is not finished, ``jobs`` at a time.

    Args:
        common: ``--config FILE key=value ...`` of the experiment.

    Raises:
        UserError: a run failed; no further one is begun, those under way are finished first.
    """
    todo = [run for run in runs if not (run.folder / DONE).is_file()]
    print(
        f"experiment: {len(runs)} runs, {len(runs) - len(todo)} finished before, {jobs} at a time", flush=True
    )
    started, failed = time.monotonic(), threading.Event()
    with ThreadPoolExecutor(jobs) as pool:
        pending = [pool.submit(_run, run, common, failed) for run in todo]
        for number, future in enumerate(as_completed(pending), 1):
            name = future.result()
            if name:
                passed = time.monotonic() - started
                left = passed / number * (len(todo) - number) / 60
                print(f"{name}: done; {number} of {len(todo)}, about {left:.0f} min to go", flush=True)


def _run(run: Run, common: Sequence[str], failed: threading.Event) -> str:
    """The run's name, or "" where another run failed before this one began."""
    if failed.is_set():
        return ""
    try:
        log = run.folder / "run.log"
        run_command([sys.executable, "-m", "training.train", *common, *run.overrides], log)
        every = next(item for item in run.overrides if item.startswith("train.save_steps="))
        run_command([sys.executable, "-m", "experiment.measure", str(run.folder), *common, every], log)
    except UserError:
        failed.set()
        raise
    (run.folder / DONE).touch()
    return run.name
