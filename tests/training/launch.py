"""Starting trainings as their users do: real processes, by horovodrun or alone; or the same entry in this process."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.harness.installed import need

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
TINY = (
    "train.model=tiny", "train.batch_size=8", "train.workers=0", "train.log_steps=5", "train.lr=0.3",
    "train.warmup_epochs=1", "train.pictures=2", "train.precision=fp32",
)  # fmt: skip


def environment() -> dict[str, str]:
    """Of the started processes: this environment's programs first, one thread each."""
    values = {name: value for name, value in os.environ.items() if not name.startswith("HOROVOD")}
    values.update(
        OMP_NUM_THREADS="1", PATH=f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}", PYTHONUNBUFFERED="1"
    )
    return values


def horovodrun(processes: int) -> list[str]:
    """The launcher for that many processes of this machine; skips the test where there is none."""
    need("horovod")
    launcher = str(PROGRAMS / "horovodrun")
    return [launcher, "-np", str(processes), "--gloo", "-H", f"localhost:{processes}"]


def train_command(workspace: Path, *overrides: str, processes: int = 0) -> list[str]:
    """Of a tiny training; 0 processes: one, without horovodrun."""
    prefix = horovodrun(processes) if processes else []
    return [*prefix, sys.executable, "-m", "training.train", f"workspace={workspace}", *TINY, *overrides]


def run(command: Sequence[str], timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run to the end; a hang fails the test."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment(), cwd=ROOT, check=False
    )


def run_here(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """What :func:`run` gives of a command of one process, by the same entry, without a start and its imports.

    A bug's traceback is this test's.
    """
    import torch

    from configs.errors import run_entry
    from training.train import main

    assert list(command[:3]) == [sys.executable, "-m", "training.train"]
    threads, out, err = torch.get_num_threads(), io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run_entry(main, list(command[3:]))
    except SystemExit as left:
        return subprocess.CompletedProcess(command, left.code, out.getvalue(), err.getvalue())  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(threads)
    raise AssertionError("an entry ends by an exit code")
