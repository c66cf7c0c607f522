"""Results that are folders of mapped files and not tables (the index, the probe): building one, where it belongs."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from configs.errors import UserError
from configs.overwrite import may_replace
from configs.schema import CocuConfig
from configs.version import VERSION
from spark_jobs.engine.folder_check import is_done
from spark_jobs.engine.waves import attempt_name
from storage import tables
from storage.addresses import is_local, join, resolve
from storage.copies import upload_folder
from storage.growth import grew
from storage.locks import hold_lock
from storage.tables import Manifest

__all__ = [
    "BESIDE",
    "FolderJob",
    "build_folder",
    "inputs_grew",
    "place_folder",
    "placed_folder",
    "write_folder",
]

BESIDE = "../../"
"""How names of files begin that lie in another folder below ``<table>/_parts``."""


@dataclass(frozen=True)
class FolderJob:
    """One folder to build, below ``<table>/_parts``; ``settings`` and ``inputs`` decide whether a stored one is right."""

    job: str
    table: str
    settings: dict[str, Any]
    inputs: Sequence[Manifest]
    # What becomes of one that was built before its inputs grew: kept, or built again without being asked to.
    keep: bool = False

    @property
    def recipes(self) -> dict[str, str]:
        """Input -> its recipe."""
        return {table.table: table.recipe for table in self.inputs}

    @property
    def recipe(self) -> str:
        """The hash that names the folder's content."""
        return tables.make_recipe(self.job, self.settings, self.recipes)


def build_folder(
    config: CocuConfig,
    job: FolderJob,
    build: Callable[[], tuple[str, dict[str, Any]]],
) -> tuple[Manifest, bool]:
    """The folder's manifest, and whether it was built now; readers see the new folder when it is whole.

    Args:
        build: makes the folder; its place relative to the table's, and its description, which the manifest repeats
            without the list of files. Files beside the folder that the description names (`../../vectors/...`)
            stay as long as it does.

    Raises:
        UserError: one of other settings or inputs is there and ``overwrite`` does not name it; another run is at work.
    """
    done = tables.find_manifest(config.workspace, job.table)
    if done is not None and is_done(config, done, job.recipe):
        return done, False
    grown = done is not None and inputs_grew(done, job)
    if done is not None and grown and job.keep and not may_replace(config.overwrite, job.table):
        print(f"{job.job}: the {job.table} stays as it was before pairs were added", flush=True)
        return done, False
    if (
        done is not None
        and done.recipe != job.recipe
        and not grown
        and not may_replace(config.overwrite, job.table)
    ):
        raise UserError(
            f"{job.job}: the {job.table} in {config.workspace} was built from something else: "
            f"{tables.recipe_differences(done, job.settings, job.recipes)}; say overwrite=[{job.table}] to replace "
            "it, or choose another workspace="
        )
    with hold_lock(config.workspace, job.table, job.job) as lock:
        begun = time.monotonic()
        folder, facts = build()
        lock.check()
        manifest = Manifest(
            table=job.table,
            workspace=config.workspace,
            job=job.job,
            recipe=job.recipe,
            settings=job.settings,
            inputs=job.recipes,
            config={},
            version=VERSION,
            status="complete",
            seconds=time.monotonic() - begun,
            extra={
                "folder": folder,
                job.table: {name: value for name, value in facts.items() if name != "files"},
            },
        )
        tables.write_manifest(manifest)
        _remove_others(manifest, facts["files"])
    return manifest, True


def inputs_grew(done: Manifest, job: FolderJob) -> bool:
    """Whether a stored folder is what it should be but for pairs that were added to its inputs."""
    same = json.dumps(done.settings, sort_keys=True) == json.dumps(job.settings, sort_keys=True)
    return same and done.recipe != job.recipe and grew(done, job.inputs)


def place_folder(workspace: str, table: str, recipe: str, write: Callable[[Path], dict[str, Any]]) -> str:
    """``write(folder)`` for this attempt of a table's folder, in a task; what :func:`placed_folder` reads on the driver."""
    inner = f"_parts/{recipe}/{attempt_name()}"
    return json.dumps({"folder": inner, "facts": write_folder(join(workspace, table, inner), write)})


def placed_folder(placed: str) -> tuple[str, dict[str, Any]]:
    """Where the folder is, relative to the table's, and its description."""
    found = json.loads(placed)
    return found["folder"], found["facts"]


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


def _remove_others(manifest: Manifest, files: Iterable[str]) -> None:
    """Below ``_parts``: whatever is not the folder that the manifest names, or a file of it that lies beside it."""
    filesystem, folder = resolve(join(manifest.folder, "_parts"))
    recipe, attempt = manifest.extra["folder"].split("/")[1:]
    kept = {recipe: {attempt}}
    for name in files:
        if name.startswith(BESIDE):
            beside, _, file = name.removeprefix(BESIDE).partition("/")
            kept.setdefault(beside, set()).add(file)
    for info in filesystem.get_file_info(pafs.FileSelector(folder)):
        if info.base_name not in kept:
            filesystem.delete_dir(info.path)
            continue
        for inner in filesystem.get_file_info(pafs.FileSelector(info.path)):
            if inner.base_name not in kept[info.base_name]:
                directory = inner.type == pafs.FileType.Directory
                (filesystem.delete_dir if directory else filesystem.delete_file)(inner.path)
