"""What leaves this folder: cocu.zip, the wheel, the image. Each holds every package, and its data."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _tracked(pattern: str = "") -> list[str]:
    """Files of the product under version control."""
    done = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT)
    return [name for name in done.stdout.splitlines() if re.search(pattern, name)]


PACKAGES = sorted(
    str(Path(name).parent).replace("/", ".")
    for name in _tracked(r"__init__\.py$")
    if not name.startswith("tests/")
)
TOP = sorted({name.partition(".")[0] for name in PACKAGES})


@pytest.fixture(scope="module")
def code_zip(tmp_path_factory):
    target = tmp_path_factory.mktemp("package") / "cocu.zip"
    subprocess.run([sys.executable, ROOT / "scripts" / "zip_code.py", target], check=True, cwd="/")
    return target


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """What the Dockerfile's COPY lines put into an empty /opt/cocu."""
    folder = tmp_path_factory.mktemp("image")
    for line in (ROOT / "cluster_configs" / "Dockerfile").read_text().splitlines():
        words = line.split()
        if words[:1] != ["COPY"] or words[1].startswith("--from="):
            continue
        *sources, target = words[1:]
        for source in map(ROOT.joinpath, sources):
            assert source.exists(), f"{line}: there is no {source.name}"
            if source.is_dir():  # a folder's content goes to the target
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, folder / target, ignore=ignored, dirs_exist_ok=True)
            else:
                (folder / target).mkdir(parents=True, exist_ok=True)
                shutil.copy(source, folder / target)
    return folder


_IMPORT_ALL = """\
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
print(json.dumps({name: importlib.import_module(name).__file__ for name in sys.argv[2:]}))
"""


def test_every_package_is_imported_from_the_zip(code_zip, tmp_path):
    done = subprocess.run(
        [sys.executable, "-I", "-c", _IMPORT_ALL, str(code_zip), *PACKAGES],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    places = json.loads(done.stdout)
    assert {name for name, file in places.items() if not file.startswith(f"{code_zip}/")} == set()
    assert sorted(places) == PACKAGES


def test_the_zip_holds_every_file_of_the_packages(code_zip):
    held = set(zipfile.ZipFile(code_zip).namelist())
    assert set(_tracked(rf"^({'|'.join(TOP)})/")) <= held
    assert {name.partition("/")[0] for name in held} == set(TOP)


def test_the_wheel_that_the_image_would_build_holds_every_package_and_its_data(image, tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
    ]
    done = subprocess.run([*command, str(image)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    held = set(zipfile.ZipFile(next(tmp_path.glob("cocu_spark-*.whl"))).namelist())
    assert {name.replace(".", "/") + "/__init__.py" for name in PACKAGES} <= held
    # READMEs describe the folder; all else is read by the code.
    assert {name for name in _tracked(rf"^({'|'.join(TOP)})/") if not name.endswith(".md")} <= held


def test_the_image_has_what_its_set_up_reads(image, tmp_path):
    """As far as it goes without a network: the real set-up script, until pip has no index to ask."""
    done = subprocess.run(
        ["bash", "scripts/setup.sh"],
        capture_output=True, text=True, check=False, cwd=image, timeout=600,
        env={
            **os.environ, "VENV": "env", "PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path),
            "XDG_CACHE_HOME": str(tmp_path),
        },
    )  # fmt: skip
    assert done.returncode != 0
    assert "No such file" not in done.stderr
    assert "Could not open requirements file" not in done.stderr
    assert re.search(
        r"(No matching distribution found for|Cannot install) (torch|numpy|wheel)", done.stderr
    ), done.stderr
