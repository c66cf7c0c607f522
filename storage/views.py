"""Views: a finished table as a plain folder of Parquet files, for readers that know nothing of manifests.

A view is ``<workspace>/views/<table>/`` with the table's part files, ``part-000000--CORPUS--SHARD.parquet`` and so on in
the order of its rows, and ``.view.json``, which says of which build. (Names that begin with a dot are passed
over by Spark, Arrow, pandas and Hugging Face's readers.) On a local disk the files are hard links: they take no
room, they stay what they are when the table is built again, and the folder appears by one rename, whole. On
other stores they are copied inside the store, in place; ``.view.json`` comes last there.
"""

from __future__ import annotations

import json
import os
import posixpath
import shutil
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.fs as pafs

from configs.errors import UserError
from storage.addresses import is_local, join, make_folder, resolve
from storage.manifest import Manifest
from storage.small_files import read_small, write_atomically
from storage.units import Part

__all__ = ["published", "view_address"]

_NOTE = ".view.json"
_AT_ONCE = 16


def view_address(workspace: str, table: str) -> str:
    """Where a table's view is, if there is one."""
    return join(workspace, "views", table)


def published(manifest: Manifest) -> tuple[str, bool]:
    """The address of a finished table's view, and whether it was made now: one of the same build is left as it is.

    Raises:
        UserError: the table has no rows, or a file of it is gone.
    """
    target = view_address(manifest.workspace, manifest.table)
    parts = [part for part in manifest.parts if part.rows]
    if not parts:
        raise UserError(
            f"table '{manifest.table}' in {manifest.workspace} holds no rows: there is nothing to publish"
        )
    note = {
        "table": manifest.table,
        "recipe": manifest.recipe,
        "files": len(parts),
        "rows": manifest.rows,
        "built": [part.file for part in parts[:1]],  # a table that was built anew has other files
    }
    known = read_small(join(target, _NOTE))
    if known is not None and json.loads(known) == note:
        return target, False
    filesystem, folder = resolve(target)
    if is_local(filesystem):
        _link(manifest, parts, Path(folder), note)
    else:
        _copy(manifest, parts, filesystem, folder, target, note)
    return target, True


def _name(number: int, part: Part) -> str:
    return f"part-{number:06d}--{part.name.replace('/', '--')}.parquet"


def _link(manifest: Manifest, parts: Sequence[Part], folder: Path, note: dict[str, object]) -> None:
    """Beside the place, then into it by a rename; what was there before goes afterwards."""
    source = Path(resolve(manifest.folder)[1])
    fresh, old = (folder.parent / f".{folder.name}-{uuid.uuid4().hex}" for _ in range(2))
    fresh.mkdir(parents=True)
    try:
        for number, part in enumerate(parts):
            _link_or_copy(source / part.file, fresh / _name(number, part), manifest.table)
        (fresh / _NOTE).write_text(json.dumps(note), encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _link_or_copy(source: Path, target: Path, table: str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise UserError(
            f"{source}: the manifest of '{table}' names this file and it is gone; run its job with verify=true"
        ) from None
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _copy(
    manifest: Manifest,
    parts: Sequence[Part],
    filesystem: pafs.FileSystem,
    folder: str,
    target: str,
    note: dict[str, object],
) -> None:
    if filesystem.get_file_info(folder).type == pafs.FileType.Directory:
        filesystem.delete_dir(folder)
    make_folder(filesystem, folder)
    source = resolve(manifest.folder)[1]

    def copy(numbered: tuple[int, Part]) -> None:
        number, part = numbered
        pafs.copy_files(
            posixpath.join(source, part.file),
            posixpath.join(folder, _name(number, part)),
            source_filesystem=filesystem,
            destination_filesystem=filesystem,
            use_threads=False,
        )

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(copy, enumerate(parts)):  # raises what a copy raised
            pass
    write_atomically(join(target, _NOTE), json.dumps(note).encode())
