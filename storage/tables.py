"""Tables: Parquet part files that count only when a manifest names them.

A table is a folder of the workspace::

    <table>/_manifest.json             a complete table; replaced by one atomic step
    <table>/_progress-<recipe>.json    what is committed so far of one that is being built
    <table>/_parts/<recipe>/...        part files

Tasks write part files under names that no other attempt has (on an object store a rename would be a copy of
every image); only the driver writes manifests. A reader goes through :func:`read_manifest` and so sees a whole
table or none; half a file of a killed task is named by no manifest and removed with the other orphans. No Spark in here: training
and evaluation read tables too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from configs.errors import UserError
from storage.addresses import join, resolve
from storage.part_files import part_path, read_file, write_part
from storage.small_files import read_small, write_atomically
from storage.units import Part, UnitRecord

__all__ = [
    "Manifest",
    "delete_orphans",
    "iterate_batches",
    "make_recipe",
    "part_path",
    "read_file",
    "read_manifest",
    "read_parts",
    "read_progress",
    "read_rejects",
    "recipe_differences",
    "remove_progress",
    "remove_table",
    "write_manifest",
    "write_part",
]

FORMAT = "cocu-table-1"


@dataclass
class Manifest:
    """The entry point of a table: what it holds and what it was made from."""

    table: str
    workspace: str
    job: str
    recipe: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    config: dict[str, Any]
    version: str
    status: str = "partial"
    units: list[UnitRecord] = field(default_factory=list)
    seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Address of the table's folder."""
        return join(self.workspace, self.table)

    @property
    def parts(self) -> list[Part]:
        """All parts in unit order, which is the order of the rows of the table."""
        return [part for unit in self.units for part in unit.parts]

    @property
    def files(self) -> list[str]:
        """Addresses of all part files, in the order of the rows of the table."""
        return [join(self.folder, part.file) for part in self.parts]

    @property
    def reject_files(self) -> list[str]:
        """Addresses of the files with this stage's rejects."""
        return [join(self.folder, unit.reject_file) for unit in self.units if unit.reject_file]

    @property
    def rows(self) -> int:
        """Rows in the table."""
        return sum(unit.rows_out for unit in self.units)

    @property
    def rows_in(self) -> int:
        """Rows that entered the job."""
        return sum(unit.rows_in for unit in self.units)

    @property
    def rejects(self) -> dict[str, int]:
        """Rejected rows by reason, most frequent first."""
        total: Counter[str] = Counter()
        for unit in self.units:
            total.update(unit.rejects)
        return dict(total.most_common())


def make_recipe(job: str, settings: dict[str, Any], inputs: dict[str, str]) -> str:
    """Twelve hex digits that stand for a job, the settings that shape its rows, and its inputs' recipes."""
    text = json.dumps({"job": job, "settings": settings, "inputs": inputs}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def recipe_differences(old: Manifest, settings: dict[str, Any], inputs: dict[str, str]) -> str:
    """In words, in which settings and inputs a stored table differs from what is asked for."""
    found: list[str] = []
    for key in sorted({*old.settings, *settings}):
        before, now = old.settings.get(key), settings.get(key)
        if before != now:
            found.extend(_nested_differences(key, before, now))
    for key in sorted({*old.inputs, *inputs}):
        if old.inputs.get(key) != inputs.get(key):
            found.append(f"its input '{key}' is another one")
    return "; ".join(found[:6]) or "another version of the job wrote it"


def _nested_differences(key: str, before: Any, now: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
            for line in _nested_differences(f"{key}.{name}", before.get(name), now.get(name))
        ]
    return [f"{key} was {_short(before)} and is now {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def read_manifest(workspace: str, table: str) -> Manifest:
    """The manifest of a complete table.

    Raises:
        UserError: there is no complete table (the message says which job builds it), or the manifest is
            damaged.
    """
    manifest = find_manifest(workspace, table)
    if manifest is None:
        job = _BUILT_BY.get(table, table)
        begun = " (it was begun and not finished)" if _progress_files(workspace, table) else ""
        raise UserError(f"table '{table}' is not in workspace {workspace}{begun}; run the job {job} first")
    return manifest


def find_manifest(workspace: str, table: str) -> Manifest | None:
    """The manifest of a complete table, or None if there is none."""
    return _load(workspace, table, "_manifest.json")


def read_progress(workspace: str, table: str, recipe: str) -> Manifest | None:
    """What is committed of a table that is being built by this recipe, or None."""
    return _load(workspace, table, f"_progress-{recipe}.json")


def write_manifest(manifest: Manifest) -> None:
    """Publish the state of a table: a complete one for all readers, a partial one for the next run."""
    values = {"format": FORMAT, **dataclasses.asdict(manifest)}
    del values["workspace"]  # a workspace may be moved or mounted elsewhere
    name = "_manifest.json" if manifest.status == "complete" else f"_progress-{manifest.recipe}.json"
    write_atomically(join(manifest.folder, name), json.dumps(values, indent=1, default=str).encode())


def remove_progress(manifest: Manifest) -> None:
    """Drop the state of building once the table is complete."""
    for path in _progress_files(manifest.workspace, manifest.table):
        filesystem, inner = resolve(path)
        filesystem.delete_file(inner)


def read_parts(
    manifest: Manifest, columns: list[str] | None = None, parts: list[Part] | None = None
) -> pa.Table:
    """Parts of a table (all of them by default) in memory. For what is known to be small."""
    chosen = manifest.parts if parts is None else parts
    tables = [read_file(join(manifest.folder, part.file), columns) for part in chosen]
    if not tables:
        raise UserError(f"table '{manifest.table}' in {manifest.workspace} holds no rows")
    return pa.concat_tables(tables)


def iterate_batches(
    manifest: Manifest, columns: list[str] | None = None, rows: int = 4096
) -> Iterator[pa.RecordBatch]:
    """All rows of a table in order, a batch at a time."""
    for address in manifest.files:
        filesystem, path = resolve(address)
        with filesystem.open_input_file(path) as source:
            yield from pq.ParquetFile(source).iter_batches(batch_size=rows, columns=columns)


def read_rejects(manifest: Manifest) -> pa.Table | None:
    """All rejects of one stage, or None if there are none."""
    tables = [read_file(address) for address in manifest.reject_files]
    return pa.concat_tables(tables) if tables else None


def delete_orphans(manifest: Manifest) -> int:
    """Remove part files that the complete manifest does not name; returns how many."""
    filesystem, folder = resolve(join(manifest.folder, "_parts"))
    if filesystem.get_file_info(folder).type == pafs.FileType.NotFound:
        return 0
    prefix = posixpath.dirname(folder)
    named = {part.file for part in manifest.parts} | {unit.reject_file for unit in manifest.units}
    removed = 0
    for info in filesystem.get_file_info(pafs.FileSelector(folder, recursive=True)):
        if info.type == pafs.FileType.File and posixpath.relpath(info.path, prefix) not in named:
            filesystem.delete_file(info.path)
            removed += 1
    for info in filesystem.get_file_info(pafs.FileSelector(folder)):
        if info.type == pafs.FileType.Directory and info.base_name != manifest.recipe:
            filesystem.delete_dir(info.path)
    return removed


def remove_table(workspace: str, table: str) -> None:
    """Remove a table that only another one's job has used, if it is there."""
    filesystem, folder = resolve(join(workspace, table))
    if filesystem.get_file_info(folder).type != pafs.FileType.NotFound:
        filesystem.delete_dir(folder)


def _progress_files(workspace: str, table: str) -> list[str]:
    filesystem, folder = resolve(join(workspace, table))
    infos = filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
    names = [info.base_name for info in infos if info.type == pafs.FileType.File]
    return [
        join(workspace, table, name)
        for name in names
        if name.startswith("_progress-") and name.endswith(".json")
    ]


def _load(workspace: str, table: str, name: str) -> Manifest | None:
    address = join(workspace, table, name)
    data = read_small(address)
    if data is None:
        return None
    try:
        values = json.loads(data)
        if values.pop("format") != FORMAT or values["table"] != table:
            raise ValueError("another format")
        values["units"] = [_unit(table, entry) for entry in values["units"]]
        return Manifest(workspace=workspace, **values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{address}: not a manifest of this software ({type(error).__name__}: {error}); "
            f"delete the folder {join(workspace, table)} and run its job again"
        ) from None


def _unit(table: str, entry: dict[str, Any]) -> UnitRecord:
    parts = tuple(Part(**part) for part in entry.pop("parts"))
    record = UnitRecord(parts=parts, **entry)
    for file in [*(part.file for part in parts), record.reject_file]:
        # A manifest is data: it must not lead a reader out of its table.
        if file is not None and (
            file.startswith("/") or ".." in file.split("/") or not file.startswith("_parts/")
        ):
            raise ValueError(f"the file name '{file}' leads out of table {table}")
    return record


_BUILT_BY = {
    "pairs": "ingest",
    "image_embeddings": "embed_images",
    "concepts": "mine_concepts",
    "pair_concepts": "mine_concepts",
    "probe": "fit_probe",
    "index": "build_index",
    "archives": "build_archives",
    "training_set": "export_training",
}
