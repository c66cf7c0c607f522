"""The lock of a table in a bucket: a store that fails for a moment, locks of unknown age, two runs at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from configs.errors import UserError
from storage import locks
from storage.locks import hold_lock
from storage.small_files import read_small, write_atomically
from tests import harness

WORKSPACE = "s3a://bucket/ws"
LOCK = f"{WORKSPACE}/pairs/_lock.json"

HOLD = (
    "import sys, time\n"
    "from configs.errors import run_entry\n"
    "from storage.locks import hold_lock\n"
    "def main(argv):\n"
    "    with hold_lock(argv[0], 'pairs', 'ingest'):\n"
    "        print('held', flush=True); time.sleep(float(argv[1]))\n"
    "run_entry(main, sys.argv[1:])"
)


def _holder(seconds):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, WORKSPACE, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_runs_that_start_at_once_are_one(store):
    runs = [_holder(5) for _ in range(3)]
    told = [run.communicate(timeout=240) for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 2, 2]
    assert [out for out, _ in told if out] == ["held\n"]
    for _, error in told:
        assert not error or "another run of ingest is at work on table 'pairs'" in error
    assert read_small(LOCK) is None


def test_a_request_that_fails_does_not_end_the_heartbeat(store, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.1)
    with hold_lock(WORKSPACE, "pairs", "ingest") as lock:
        store.refuse = lambda request: 403 if request.path.endswith("_lock.json") else None
        harness.wait_for(lambda: store.refused >= 3, 60, "no heartbeat was refused")
        with pytest.raises(UserError, match="_lock.json cannot be read: .*run again"):
            lock.check()
        store.refuse = lambda request: None
        before = read_small(LOCK)
        harness.wait_for(lambda: read_small(LOCK) != before, 60, "the heart does not beat any more")
        lock.check()
    assert read_small(LOCK) is None


@pytest.mark.parametrize("content", [b"", b'{"job": "ing'])
def test_an_empty_or_cut_lock_is_alive_until_it_is_a_minute_old(store, monkeypatch, content):
    write_atomically(LOCK, content)
    with pytest.raises(UserError, match="another run of ingest"), hold_lock(WORKSPACE, "pairs", "ingest"):
        pass
    monkeypatch.setattr(locks, "STALE_SECONDS", 0.5)
    time.sleep(1.5)  # a store's times are in whole seconds
    with hold_lock(WORKSPACE, "pairs", "ingest"):
        pass


def test_an_empty_lock_on_a_disk_is_alive_until_it_is_a_minute_old(tmp_path):
    (tmp_path / "pairs").mkdir()
    lock = tmp_path / "pairs" / "_lock.json"
    lock.touch()
    with pytest.raises(UserError, match="another run of ingest"), hold_lock(str(tmp_path), "pairs", "ingest"):
        pass
    os.utime(lock, (time.time() - 61, time.time() - 61))
    with hold_lock(str(tmp_path), "pairs", "ingest"):
        pass


def test_the_lock_of_a_killed_run_is_taken_over(store):
    run = _holder(600)
    assert run.stdout is not None
    assert run.stdout.readline() == "held\n"
    run.kill()
    run.wait()
    assert read_small(LOCK) is not None
    with hold_lock(WORKSPACE, "pairs", "ingest") as lock:
        lock.check()


def test_a_bucket_that_refuses_is_one_clear_error(store):
    store.refuse = lambda request: 403
    with (
        pytest.raises(UserError, match="cannot write to s3a://bucket/ws/pairs.*choose a writable workspace"),
        hold_lock(WORKSPACE, "pairs", "ingest"),
    ):
        pass
