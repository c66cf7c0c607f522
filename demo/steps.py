"""Steps of the demo: the commands that a user would type, printed before they run and timed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from configs.errors import UserError

__all__ = ["Steps", "own_environment", "resolved"]


class Steps:
    """Runs commands one after another; ``seconds`` holds how long each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def run(self, name: str, command: list[str]) -> None:
        """Print and run a command, whose output is the user's to see.

        Raises:
            UserError: it ended with another exit code than 0.
        """
        begun = time.monotonic()
        print(f"\n$ {shlex.join(command)}", flush=True)
        code = subprocess.run(resolved(command), env=own_environment()).returncode
        if code:
            raise UserError(f"the step '{name}' ended with exit code {code}; its message is above")
        self.seconds[name] = round(time.monotonic() - begun, 1)


def resolved(command: list[str]) -> list[str]:
    """The command with this environment's own programs."""
    if command[0] == "python":
        return [sys.executable, *command[1:]]
    beside = Path(sys.executable).parent / command[0]
    return [str(beside) if beside.exists() else command[0], *command[1:]]


def own_environment() -> dict[str, str]:
    """The environment, with what Spark's processes take from it."""
    environment = dict(os.environ)
    environment.setdefault("PYSPARK_PYTHON", sys.executable)
    environment.setdefault("SPARK_CONF_DIR", str(Path("cluster_configs/local").resolve()))
    # Drivers of a minute: what Java's second compiler makes faster, it has cost before (half of the JVM's time).
    environment.setdefault("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    return environment
