"""How many cores this process may use: fewer than the host has inside a container or under taskset."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cores", "cpu_quota", "let_threads_sleep", "threads"]


def cores(root: Path = Path("/")) -> int:
    """Cores that the affinity mask allows and the control group pays for, at least 1.

    A container with a quota of 4 cores on a host of 96 sees all 96; a program that starts 96 threads there is stopped
    for most of each period. ``root``: where ``proc`` and ``sys`` are.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    return max(1, allowed if quota is None else min(allowed, math.floor(quota + 1e-9)))


def threads(processes: int = 1) -> int:
    """Threads for each of some processes that share the cores: at most what ``OMP_NUM_THREADS`` says, at least 1."""
    share = max(1, cores() // processes)
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(told)) if told.isdigit() and int(told) > 0 else share


def let_threads_sleep() -> None:
    """Have OpenMP's threads sleep where they wait for each other; call before torch is loaded, which reads it then.

    As it comes they spin. With other work on the machine a thread that is waited for may not be running, and the one that
    spins uses up the time that the other one needs: two threads then do a thirtieth of what one does alone
    (``tests/benchmarks/bench_threads.py``; docs/training.md). What the user has set stays.
    """
    if not any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Cores' worth of time a second that this process' control groups may use; None: no limit that can be seen."""
    found = [quota for folder in _groups(root) if (quota := _quota(folder)) is not None]
    return min(found, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process' groups, from its own up to the outermost that is seen (version 2 and 1)."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            hierarchies = [mount, mount / "unified"]
        elif "cpu" in controllers.split(","):
            hierarchies = [mount / controllers, mount / "cpu"]
        else:
            continue
        inner = Path(path.lstrip("/"))
        for hierarchy in hierarchies:
            # a container's own group is mounted at the top while its path is told as the host sees it
            yield from (hierarchy / step for step in (inner, *inner.parents))


def _quota(folder: Path) -> float | None:
    """Of ``cpu.max`` (``max 100000`` or ``250000 100000``), or of version 1's two files (-1: none)."""
    both = _read(folder / "cpu.max").split()
    if not both:
        both = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
    try:
        quota, period = float(both[0]), float(both[1])
    except (ValueError, IndexError):  # max, or no such files
        return None
    return quota / period if quota > 0 and period > 0 else None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
