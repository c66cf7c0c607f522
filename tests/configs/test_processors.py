"""Cores of containers as their files tell them; and of this process under taskset."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from configs.processors import cores, cpu_quota, threads

V1 = "12:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n0::/docker/ab\n"


def made(root: Path, groups: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),  # in a container with a namespace of its own
        ("0::/kubepods/pod1/c\n", {"kubepods/pod1/c/cpu.max": "400000 100000"}, 4.0),
        ("0::/pod/c\n", {"pod/c/cpu.max": "max 100000", "pod/cpu.max": "150000 100000"}, 1.5),  # its parent's
        ("0::/host/only\n", {"cpu.max": "300000 100000"}, 3.0),  # mounted at the top
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        (V1, {"cpu,cpuacct/docker/ab/cpu.cfs_quota_us": "200000", "cpu,cpuacct/docker/ab/cpu.cfs_period_us": "100000"}, 2.0),
        (V1, {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("", {}, None),
    ],
)  # fmt: skip
def test_quotas_of_both_versions(
    tmp_path: Path, groups: str, files: dict[str, str], quota: float | None
) -> None:
    root = made(tmp_path, groups, files)
    assert cpu_quota(root) == quota
    allowed = len(os.sched_getaffinity(0))
    assert cores(root) == (allowed if quota is None else max(1, min(allowed, int(quota))))


def test_without_proc_the_affinity_counts(tmp_path: Path) -> None:
    assert cores(tmp_path) == len(os.sched_getaffinity(0))


def test_a_process_bound_to_one_core_counts_one() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from configs.processors import cores; print(cores())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "1"


def test_threads_are_the_share_of_the_cores_and_no_more_than_openmp_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads() == cores()
    assert threads(2 * cores()) == 1
    for told, expected in (("1", 1), (str(10 * cores()), cores()), ("0", cores()), ("many", cores())):
        monkeypatch.setenv("OMP_NUM_THREADS", told)
        assert threads() == expected


@pytest.mark.parametrize(
    ("room", "told", "spins"),
    [("training", {}, "0"), ("evaluation", {}, "0"), ("training", {"GOMP_SPINCOUNT": "77"}, "77")],
)
def test_openmps_threads_sleep_where_nothing_else_is_said(
    room: str, told: dict[str, str], spins: str
) -> None:
    """OpenMP prints what it goes by as it is loaded, with torch: how often a thread that waits looks before it sleeps."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    environment = {**clean, **told, "OMP_DISPLAY_ENV": "verbose"}
    command = [sys.executable, "-c", f"import {room}, torch"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert set(re.findall(r"GOMP_SPINCOUNT = '(\w+)'", done.stderr)) == {spins}
