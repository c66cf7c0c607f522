from __future__ import annotations

import os
import subprocess
import sys

import pytest

from storage.addresses import list_folder, resolve
from storage.copies import download_folder, upload_folder

FILES = 12  # more than Arrow's pool has threads; of what size makes no difference

UPLOAD = (
    "import sys; from pathlib import Path; from storage.copies import upload_folder\n"
    "upload_folder(Path(sys.argv[1]), sys.argv[2])"
)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "made"
    for number in range(FILES):
        path = made / f"split-{number % 3}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(5000 + number))
    (made / "empty").touch()
    return made


def _contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_more_files_than_arrow_has_threads_do_not_wait_for_each_other(store, folder, tmp_path):
    """In a process of its own, that can be ended if it hangs, as pyarrow.fs.copy_files with threads does."""
    address = "s3a://bucket/ws/index"
    command = [sys.executable, "-c", UPLOAD, str(folder), address]
    subprocess.run(command, env={**os.environ, **store.environment}, timeout=120, check=True)
    download_folder(address, tmp_path / "back")
    assert _contents(tmp_path / "back") == _contents(folder)


def test_a_copy_that_fails_is_an_error(store, folder):
    store.refuse = lambda request: 403 if request.path.endswith("7.bin") else None
    with pytest.raises(OSError):
        upload_folder(folder, "s3a://bucket/ws/index")
    filesystem, path = resolve("s3a://bucket/ws/index")
    assert f"{path}/split-1/7.bin" not in [info.path for info in list_folder(filesystem, path, True)]


def test_folders_of_local_disks_are_copied_too(folder, tmp_path):
    upload_folder(folder, str(tmp_path / "there"))
    download_folder(str(tmp_path / "there"), tmp_path / "back")
    assert _contents(tmp_path / "back") == _contents(folder)


def test_a_folder_that_is_not_there_is_an_error(store, tmp_path):
    with pytest.raises(FileNotFoundError):
        download_folder("s3a://bucket/nothing", tmp_path)
