"""Jobs as processes of their own: started, waited for, killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

ROOT = Path(__file__).parents[2]
Value = TypeVar("Value")


def environment(**changes: str) -> dict[str, str]:
    """The environment of jobs started by the tests."""
    values = dict(os.environ)
    for name in ("PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET", "SPARK_ENV_LOADED"):
        values.pop(name, None)
    values.update(PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1", OMP_NUM_THREADS="1", **changes)
    return values


def submit(
    job: str,
    config: Path,
    workspace: Path,
    *overrides: str,
    master: str = "local[2]",
    options: Sequence[str] = (),
    cwd: Path = ROOT,
) -> list[str]:
    """The command line of a job."""
    program = str(Path(sys.executable).parent / "spark-submit")
    common = ["--driver-memory", "1g", "--conf", "spark.ui.enabled=false"]
    java = os.environ.get("SPARK_SUBMIT_OPTS")  # of drivers, by tests/conftest.py; executors live as shortly
    if java:
        common += ["--conf", f"spark.executor.extraJavaOptions={java}"]
    script = str(ROOT / "spark_jobs" / f"{job}.py")
    return [
        program,
        "--master",
        master,
        *common,
        *options,
        script,
        "--config",
        str(config),
        f"workspace={workspace}",
        *overrides,
    ]


def run(
    command: Sequence[str], timeout: float = 300, check: bool = True, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run a job to its end."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment(**changes), cwd=ROOT
    )
    if check and done.returncode:
        raise AssertionError(f"exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    return done


def tied(command: Sequence[str]) -> list[str]:
    """The command, so that it dies with this process however this process dies (where setpriv is there)."""
    program = shutil.which("setpriv")
    return [program, "--pdeathsig", "KILL", *command] if program else list(command)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def wait_for(condition: Callable[[], Value], seconds: float, message: str) -> Value:
    """Poll until a condition holds; its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(message)


def kill_all(processes: Sequence[psutil.Process]) -> None:
    """kill -9, children first."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()


def kill_tree(pid: int) -> None:
    """kill -9 of a driver with everything it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        kill_all([psutil.Process(pid)])
