from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from configs.errors import UserError
from storage.locks import hold_lock


def _write_lock(folder, **changes):
    values = {
        "job": "ingest",
        "token": "t",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "time": time.time(),
    }
    (folder / "pairs").mkdir()
    (folder / "pairs" / "_lock.json").write_text(json.dumps({**values, **changes}))


def test_the_second_of_two_runs_stops_and_says_why(tmp_path):
    with hold_lock(str(tmp_path), "pairs", "ingest"):
        code = (
            "import sys; from storage.locks import hold_lock\n"
            "from configs.errors import run_entry\n"
            "def main(argv):\n"
            "    with hold_lock(argv[0], 'pairs', 'ingest'): print('got it')\n"
            "run_entry(main, sys.argv[1:])"
        )
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
        assert done.returncode == 2
        assert "another run of ingest is at work on table 'pairs'" in done.stderr
        assert str(os.getpid()) in done.stderr
    assert not (tmp_path / "pairs" / "_lock.json").exists()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    _write_lock(tmp_path, pid=dead.pid)
    with hold_lock(str(tmp_path), "pairs", "ingest") as lock:
        lock.check()


def test_a_silent_lock_of_another_host_is_taken_over_after_a_minute(tmp_path):
    _write_lock(tmp_path, host="elsewhere", time=time.time() - 61)
    with hold_lock(str(tmp_path), "pairs", "ingest"):
        pass


def test_a_live_lock_of_another_host_is_respected(tmp_path):
    _write_lock(tmp_path, host="elsewhere", pid=1, time=time.time() - 30)
    with (
        pytest.raises(UserError, match="host elsewhere, process 1"),
        hold_lock(str(tmp_path), "pairs", "ingest"),
    ):
        pass


def test_who_lost_the_lock_notices_before_committing(tmp_path):
    with hold_lock(str(tmp_path), "pairs", "ingest") as lock:
        (tmp_path / "pairs" / "_lock.json").write_text(
            json.dumps({"token": "other", "host": "elsewhere", "pid": 5, "time": time.time()})
        )
        with pytest.raises(UserError, match="took over this table"):
            lock.check()
    assert (tmp_path / "pairs" / "_lock.json").exists()  # it is the other's now


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_workspace_is_one_clear_error(tmp_path):
    tmp_path.chmod(0o500)
    with (
        pytest.raises(UserError, match="cannot write to .*choose a writable workspace"),
        hold_lock(str(tmp_path), "pairs", "ingest"),
    ):
        pass
