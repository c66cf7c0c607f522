from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("configs", "storage", "corpora", "curation", "models", "spark_jobs")
_DIGEST = (
    "import sys; sys.path.insert(0, sys.argv[1]); import spark_jobs.engine.versions as here; "
    "assert here.__file__.startswith(sys.argv[1]), here.__file__; print(here.versions()['code'])"
)


def _digest(place: Path) -> str:
    """The digest of the sources in a folder or zip, as a process that finds nothing else computes it."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", _DIGEST, str(place)],
        capture_output=True, text=True, check=False, cwd=place.parent, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return target


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources") / "project"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_folder_and_zip_have_one_digest(sources, tmp_path):
    assert _digest(sources) == _digest(_zipped(sources, tmp_path / "cocu.zip"))


def test_a_changed_file_changes_it_wherever_it_lies(sources, tmp_path):
    other = tmp_path / "project"
    shutil.copytree(sources, other)
    seen = [_digest(sources)]
    for file in ("curation/index/spec.py", "spark_jobs/engine/waves.py"):
        with (other / file).open("a") as stream:
            stream.write("# another comment\n")
        seen.append(_digest(other))
    assert len(set(seen)) == 3
    # What is no source does not count.
    (other / "curation" / "index" / "notes.txt").write_text("no source")
    assert _digest(_zipped(other, tmp_path / "cocu.zip")) == seen[-1]
