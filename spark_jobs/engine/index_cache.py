"""Index and probe on an executor's host: one copy on its disk, one in its memory."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from configs.errors import UserError
from curation.index import FORMAT, OpenIndex, open_index
from curation.mapped_files import read_description
from curation.probe import Probe, open_probe
from spark_jobs.engine.folders import BESIDE
from storage.addresses import is_local, join, resolve
from storage.copies import download_file, download_folder

__all__ = ["local_index", "local_probe"]


def private_folder(parent: Path) -> Path:
    """``parent``/cocu-index-UID, made where it is missing, that nobody else can write to.

    Raises:
        UserError: it is another user's, a link, or open to others, who could have put an index there.
    """
    folder = parent / f"cocu-index-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise UserError(
            f"{folder}: others can write there, so what it holds is not trusted: remove it, or set COCU_CACHE "
            "(on every executor) to a folder of your own"
        )
    return folder


@lru_cache(maxsize=1)
def local_index(workspace: str, folder: str, recipe: str, table: str = "index") -> OpenIndex:
    """The index, memory-mapped: one copy in a host's memory whatever the number of Python workers."""
    return open_index(_on_host(join(workspace, table, folder), recipe, open_index, _fetch_beside))


@lru_cache(maxsize=1)
def local_probe(workspace: str, folder: str, recipe: str) -> Probe:
    """The probe, the same way."""
    return open_probe(_on_host(join(workspace, "probe", folder), recipe, open_probe))


def _on_host(
    address: str,
    recipe: str,
    opened: Callable[..., object],
    fetch_more: Callable[[str, Path, Path], None] = lambda *_: None,
) -> Path:
    """Where a folder of mapped files is on this host.

    One on a local or shared disk is used where it is. One on an object store or HDFS is fetched once per host, by
    the first worker that needs it, while the others wait for its lock; ``opened`` checks it whole.
    """
    filesystem, path = resolve(address)
    if is_local(filesystem):
        return Path(path)
    base = private_folder(Path(os.environ.get("COCU_CACHE") or tempfile.gettempdir()))
    table, _, inner = address.partition("/_parts/")
    place = hashlib.sha256(table.encode()).hexdigest()[:12]
    target = base / f"{place}-{recipe}-{inner.rpartition('/')[2]}"
    with (base / f"{place}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            for cut_off in base.glob(f"{place}-*.fetching"):
                shutil.rmtree(cut_off)
            fetched = base / f"{target.name}.fetching"
            fetched.mkdir()
            download_folder(address, fetched)
            fetch_more(address, fetched, base)
            opened(fetched, check="full")
            _remove_others(base, place, fetched)
            fetched.replace(target)
    return target


def _fetch_beside(address: str, fetched: Path, base: Path) -> None:
    """Vectors that lie beside an index: fetched, or taken from a former index' folder on this host.

    The description that is fetched says afterwards that they lie in the folder.
    """
    path = fetched / "index.json"
    facts = read_description(fetched, "index.json", FORMAT, ["files", "segments"], "build_index")
    named = {name: name.rpartition("/")[2] for name in facts["files"] if name.startswith(BESIDE)}
    for name, file in named.items():
        held = next((found for found in base.glob(f"*/{file}") if found.parent != fetched), None)
        if held is None:
            download_file(join(address, name), fetched / file)
        else:
            (fetched / file).hardlink_to(held)
    facts["files"] = {named.get(name, name): value for name, value in facts["files"].items()}
    for segment in facts["segments"]:
        segment["vectors"] = named.get(segment["vectors"], segment["vectors"])
    path.write_text(json.dumps(facts), encoding="utf-8")


def _remove_others(base: Path, place: str, kept: Path) -> None:
    """Former folders of the same workspace and table, which has one.

    Who has one of them mapped keeps it: its blocks are freed when the last process lets go.
    """
    for folder in base.glob(f"{place}-*"):
        if folder != kept:
            shutil.rmtree(folder, ignore_errors=True)
