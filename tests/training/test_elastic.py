"""Horovod Elastic with real processes: one joins, one is killed, and every row of every epoch is still trained on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.harness.installed import needs
from tests.training.launch import PROGRAMS, ROOT, TINY, environment
from tests.training.synthetic import write_training_set

pytestmark = needs("horovod")
ROWS = [50, 70, 33, 60]
EPOCHS, COMMIT = 16, 4


def start(folder: Path) -> subprocess.Popen[bytes]:
    """An elastic training on one host name of this machine; ``hosts`` is what discovery prints."""
    hosts = folder / "hosts"
    hosts.write_text("localhost:1\n")
    script = folder / "discover.sh"
    script.write_text(f"#!/bin/sh\ncat {hosts}\n")
    script.chmod(0o755)
    launcher = [
        str(PROGRAMS / "horovodrun"), "--gloo", "--network-interfaces", "lo", "-np", "1", "--min-np", "1", "--max-np", "2",
        "--host-discovery-script", str(script),
    ]  # fmt: skip
    overrides = [f"workspace={folder}", *TINY, f"train.epochs={EPOCHS}", f"train.commit_steps={COMMIT}"]
    command = [*launcher, sys.executable, "-u", "-m", "training.train", *overrides]
    log = (folder / "log").open("wb")
    return subprocess.Popen(
        command, stdout=log, stderr=log, env=environment(), cwd=ROOT, start_new_session=True
    )


def wait_for(
    process: subprocess.Popen[bytes], log: Path, pattern: str, seconds: float = 180
) -> re.Match[str]:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        found = re.search(pattern, log.read_text())
        if found:
            return found
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.05)
    raise AssertionError(f"{pattern} did not come:\n{log.read_text()[-3000:]}")


def kill_worker_of(folder: Path, host: str) -> None:
    """kill -9 of the training process that runs under this host name."""
    for process in psutil.process_iter():
        try:
            mine = f"workspace={folder}" in process.cmdline()
            if (
                mine
                and process.environ().get("HOROVOD_HOSTNAME") == host
                and "horovodrun" not in process.cmdline()[1]
            ):
                process.kill()
                return
        except (psutil.NoSuchProcess, psutil.AccessDenied, IndexError):
            continue
    raise AssertionError(f"no training process of {host}")


@pytest.mark.slow
def test_a_worker_joins_and_is_killed_and_no_row_is_lost_or_doubled(tmp_path: Path) -> None:
    write_training_set(tmp_path, ROWS, group_rows=16)
    process, log = start(tmp_path), tmp_path / "log"
    try:
        wait_for(process, log, r"step 5 ")
        (tmp_path / "hosts").write_text("localhost:1\n127.0.0.1:1\n")
        joined = int(wait_for(process, log, r"rank 1 of 2: training from step (\d+)").group(1))
        assert joined > 0
        wait_for(process, log, rf"step {joined + 5 - joined % 5 + 5} ")
        (tmp_path / "hosts").write_text("localhost:1\n")
        kill_worker_of(tmp_path, "127.0.0.1")
        alone = int(
            wait_for(process, log, r"(?s)rank 1 of 2.*rank 0 of 1: training from step (\d+)").group(1)
        )
        last_seen = max(
            int(step)
            for step in re.findall(
                r"step (\d+) ", log.read_text().split("rank 0 of 1: training from step " + str(alone))[0]
            )
        )
        assert 0 <= last_seen - alone <= COMMIT
        assert process.wait(timeout=240) == 0, log.read_text()[-3000:]
    finally:
        if process.poll() is None:
            process.kill()
    summary = json.loads((tmp_path / "training" / "summary.json").read_text())
    assert summary["epochs"] == EPOCHS
    assert summary["rows"] + summary["rows_left_out"] == EPOCHS * sum(ROWS)
    assert summary["rows_left_out"] == 0
    assert summary["losses"][-1] < 0.8 * summary["losses"][0]
