"""setup.cfg's bounds against what the two locks name: both are installations that the bounds admit."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.harness.installed import installed

ROOT = Path(__file__).parents[1]
PINNED, MODERN = "requirements.txt", "requirements-modern.txt"


def pins(name: str) -> dict[str, Version]:
    """Package -> version of a file of ``package==version`` lines."""
    lines = (ROOT / name).read_text().splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all([bound.operator for bound in one.specifier] == ["=="] for one in wanted), name
    return {canonicalize_name(one.name): Version(next(iter(one.specifier)).version) for one in wanted}


def bounds() -> dict[str, list[Requirement]]:
    """Extra -> requirements of setup.cfg; "" is what every installation gets."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    lists = {"": settings["options"]["install_requires"], **settings["options.extras_require"]}
    return {extra: [Requirement(line) for line in text.split("\n") if line] for extra, text in lists.items()}


def installation(lock: str) -> dict[str, Version]:
    """What setup.sh installs: the lock, and of constraints.txt what the lock does not name."""
    return pins("constraints.txt") | pins(lock)


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        (PINNED, {"", "language", "horovod", "train", "eval", "dev"}),
        (MODERN, {"", "language", "eval", "dev"}),
    ],
)
def test_a_lock_is_within_the_bounds_of_what_it_installs(lock: str, extras: set[str]) -> None:
    there = installation(lock)
    wanted = [one for extra, listed in bounds().items() if extra in extras for one in listed]
    assert [one.name for one in wanted if canonicalize_name(one.name) not in there] == []
    held = [(one, there[canonicalize_name(one.name)]) for one in wanted]
    assert [f"{one} and not {pin}" for one, pin in held if not one.specifier.contains(pin)] == []


def test_train_alone_holds_back() -> None:
    """Its bounds refuse the second lock's pyarrow and NumPy; nothing else of setup.cfg does (see above)."""
    modern = pins(MODERN)
    refused = {
        one.name
        for one in bounds()["train"]
        if one.name in modern and not one.specifier.contains(modern[one.name])
    }
    assert refused == {"pyarrow", "numpy"}


def test_the_second_lock_is_the_first_without_petastorm_and_horovod_and_newer() -> None:
    old, new = pins(PINNED), pins(MODERN)
    assert set(old) - set(new) == {"petastorm", "horovod"}
    assert set(new) - set(old) == {"opencv-python"}  # of mmcv-lite; constraints.txt holds the other one's
    before = installation(PINNED)
    changed = {name for name, pin in new.items() if pin != before[name]}
    assert changed == {"numpy", "pyarrow", "pandas", "pyspark", "opencv-python", "opencv-python-headless"}
    assert all(new[name] > before[name] for name in changed)


def test_tests_are_skipped_only_where_petastorm_cannot_be() -> None:
    """In an environment with Petastorm's pyarrow both are wanted: tests that need them are not to vanish in silence."""
    if Version(version("pyarrow")) < Version("15"):
        assert installed("petastorm")
        assert installed("horovod")


def test_a_lock_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    folder = os.path.relpath(tmp_path / "environment", ROOT)
    done = subprocess.run(
        ["bash", "scripts/setup.sh"],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
        env={"PATH": "/usr/bin:/bin", "LOCK": "requirements-today.txt", "VENV": folder, "PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: LOCK=requirements-today.txt: there is no such file; the locks are ")
    assert done.stderr.count("\n") == 1
    assert MODERN in done.stderr
