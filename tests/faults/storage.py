"""Disks that are full or may not be written."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests import harness
from tests.faults.calm import Corpus, Outcome, compare, run_here


def _may_mount() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


needs_mount = pytest.mark.skipif(not _may_mount(), reason="this user may not mount file systems")
_NAMES = ("pairs", "image_embeddings")
_REPLACE = ("overwrite=true", "ingest.rows_per_part=100")


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "64m") -> Iterator[Path]:
    """A file system of its own, in memory; needs root.

    Raises:
        PermissionError: this user may not mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(done.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


def _fill(corpus: Corpus, workspace: Path) -> None:
    for name in _NAMES:
        shutil.copytree(corpus.calm / name, workspace / name)


def disk_full(session: SparkSession, corpus: Corpus, scratch: Path) -> Outcome:
    """No room for a second copy of pairs: one clear error, the old tables intact; with room it goes on."""
    with small_disk(scratch / "small-disk") as workspace:
        _fill(corpus, workspace)
        state = os.statvfs(workspace)
        used = (state.f_blocks - state.f_bfree) * state.f_frsize
        _remount(workspace, f"size={used + 200_000}")
        said = run_here(session, "ingest", corpus.config, workspace, *_REPLACE)
        outcome = compare(corpus.calm, workspace, "disk full", 1, _NAMES, said[:90])
        if "No space left" not in said or "free space" not in said:
            outcome.verdict = f"unclear: {said or 'no error'}"
        _remount(workspace, "size=64m")
        again = run_here(session, "ingest", corpus.config, workspace, *_REPLACE)
        rows = harness.table_rows(workspace, "pairs", ["key"])
        if again or rows.num_rows != corpus.samples or harness.duplicates(rows):
            outcome.verdict = f"with room again: {rows.num_rows} rows, {again}"
        elif harness.stray_files(workspace, "pairs"):
            outcome.verdict = "halves of files were left"
    return outcome


def read_only(session: SparkSession, corpus: Corpus, scratch: Path) -> Outcome:
    """A workspace that may not be written: one clear error, and what is there can still be read."""
    with small_disk(scratch / "read-only") as workspace:
        _fill(corpus, workspace)
        _remount(workspace, "ro")
        said = run_here(session, "ingest", corpus.config, workspace, *_REPLACE)
        outcome = compare(corpus.calm, workspace, "read-only workspace", 1, _NAMES, said[:90])
    if "Read-only" not in said or "choose a writable workspace" not in said:
        outcome.verdict = f"unclear: {said or 'no error'}"
    return outcome
