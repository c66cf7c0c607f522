"""Results that are folders of mapped files and not tables (the index, the probe): writing one where it belongs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from storage.addresses import is_local, join, resolve
from storage.copies import upload_folder
from storage.tables import Manifest

__all__ = ["remove_other_folders", "write_folder"]


def write_folder(address: str, write: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """``write(folder)`` where the folder belongs, or, if that is no local disk, here first; what it returns."""
    filesystem, path = resolve(address)
    if is_local(filesystem):
        shutil.rmtree(path, ignore_errors=True)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return write(Path(path))
    with tempfile.TemporaryDirectory(prefix="cocu-folder-") as scratch:
        metadata = write(Path(scratch) / "written")
        upload_folder(Path(scratch) / "written", address)
        return metadata


def remove_other_folders(manifest: Manifest) -> None:
    """Below ``_parts``: whatever is not the folder that the manifest names."""
    filesystem, folder = resolve(join(manifest.folder, "_parts"))
    keep = manifest.extra["folder"].split("/")
    for info in filesystem.get_file_info(pafs.FileSelector(folder)):
        if info.base_name != keep[1]:
            filesystem.delete_dir(info.path)
    for info in filesystem.get_file_info(pafs.FileSelector(f"{folder}/{keep[1]}")):
        if info.base_name != keep[2]:
            filesystem.delete_dir(
                info.path
            ) if info.type == pafs.FileType.Directory else filesystem.delete_file(info.path)
