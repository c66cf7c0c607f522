"""Runs trainings and their evaluations, some side by side; what is finished is not done again."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from configs.errors import UserError
from demo.steps import own_environment, resolved
from experiment.plan import Run

__all__ = ["DONE", "run_all", "run_command"]

DONE = "done"
"""Empty file in the folder of a run that is trained and measured."""


def run_command(command: list[str], log: Path | None = None) -> None:
    """Run a command in this environment, its output in ``log`` (or on the terminal).

    Raises:
        UserError: it ended with another exit code than 0.
    """
    environment = {**own_environment(), "OMP_NUM_THREADS": "1"}
    with contextlib.ExitStack() as files:
        streams: dict[str, Any] = {}
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            streams = {"stdout": files.enter_context(log.open("ab")), "stderr": subprocess.STDOUT}
        code = subprocess.run(resolved(command), env=environment, **streams).returncode
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
        run_command(["python", "-m", "training.train", *common, *run.overrides], log)
        run_command(
            [
                "python",
                "-m",
                "experiment.measure",
                str(run.folder),
                *common,
                f"train.save_steps={run.save_steps}",
            ],
            log,
        )
    except UserError:
        failed.set()
        raise
    (run.folder / DONE).touch()
    return run.name
