"""Tables: Parquet part files that count only when a manifest names them.

A table is a folder of the workspace::

    <table>/_manifest.json             a complete table; replaced by one atomic step
    <table>/_progress-<recipe>.json    what is committed so far of one that is being built (storage.progress)
    <table>/_progress-<recipe>/...     the records of its waves
    <table>/_parts/<recipe>/...        part files

Tasks write part files under names that no other attempt has (on an object store a rename would be a copy of
every image); only the driver writes manifests. A reader goes through :func:`read_manifest` and so sees a whole
table or none; half a file of a killed task is named by no manifest and removed with the other
orphans. No Spark in here: training and evaluation read tables too.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from configs.errors import UserError
from storage.addresses import join, list_folder, resolve
from storage.manifest import Manifest, decode, encode, make_recipe, recipe_differences
from storage.part_files import part_path, read_file, read_schema, rows_of_keys, write_part
from storage.progress import (
    begun_recipe,
    commit_wave,
    is_begun,
    read_progress,
    remove_progress,
    told_of_damage,
)
from storage.small_files import read_small, write_atomically
from storage.units import Part

__all__ = [
    "Manifest",
    "begun_recipe",
    "commit_wave",
    "delete_orphans",
    "find_manifest",
    "iterate_batches",
    "join",
    "make_recipe",
    "part_path",
    "read_file",
    "read_manifest",
    "read_parts",
    "read_progress",
    "read_rejects",
    "read_schema",
    "recipe_differences",
    "remove_progress",
    "remove_table",
    "rows_of_keys",
    "write_manifest",
    "write_part",
]


def read_manifest(workspace: str, table: str) -> Manifest:
    """The manifest of a complete table.

    Raises:
        UserError: there is no complete table (the message says which job builds it), or the manifest is
            damaged.
    """
    manifest = find_manifest(workspace, table)
    if manifest is None:
        job = _BUILT_BY.get(table, table)
        begun = " (it was begun and not finished)" if is_begun(workspace, table) else ""
        raise UserError(f"table '{table}' is not in workspace {workspace}{begun}; run the job {job} first")
    return manifest


def find_manifest(workspace: str, table: str) -> Manifest | None:
    """The manifest of a complete table, or None if there is none."""
    address = join(workspace, table, "_manifest.json")
    data = read_small(address)
    if data is None:
        return None
    with told_of_damage(address, workspace, table):
        return decode(data, workspace, table)


def write_manifest(manifest: Manifest) -> None:
    """Make a table that is complete visible to all readers."""
    write_atomically(join(manifest.folder, "_manifest.json"), encode(manifest))


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
            yield from pq.ParquetFile(source, pre_buffer=False).iter_batches(batch_size=rows, columns=columns)


def read_rejects(manifest: Manifest) -> pa.Table | None:
    """All rejects of one stage, or None if there are none."""
    tables = [read_file(address) for address in manifest.reject_files]
    return pa.concat_tables(tables) if tables else None


def delete_orphans(manifest: Manifest) -> int:
    """Remove part files that the complete manifest does not name; returns how many."""
    filesystem, folder = resolve(join(manifest.folder, "_parts"))
    named = {resolve(address)[1] for address in (*manifest.files, *manifest.reject_files)}
    infos = list_folder(filesystem, folder, recursive=True)
    orphans = [info.path for info in infos if info.type == pafs.FileType.File and info.path not in named]
    # Of a table that grew, folders of other recipes hold units that stand; others go whole.
    kept = {f"{folder}/{path[len(folder) + 1 :].partition('/')[0]}" for path in named}
    kept.add(f"{folder}/{manifest.recipe}")
    for path in orphans:
        if f"{folder}/{path[len(folder) + 1 :].partition('/')[0]}" in kept:
            filesystem.delete_file(path)
    for info in infos:
        if (
            info.type == pafs.FileType.Directory
            and posixpath.dirname(info.path) == folder
            and info.path not in kept
        ):
            filesystem.delete_dir(info.path)  # of another recipe; a store deletes a thousand files a request
    return len(orphans)


def remove_table(workspace: str, table: str) -> None:
    """Remove a table that only another one's job has used, if it is there."""
    filesystem, folder = resolve(join(workspace, table))
    if filesystem.get_file_info(folder).type != pafs.FileType.NotFound:
        filesystem.delete_dir(folder)


_BUILT_BY = {
    "pairs": "ingest",
    "image_embeddings": "embed_images",
    "duplicates": "find_duplicates",
    "selection": "select_pairs",
    "concepts": "mine_concepts",
    "pair_concepts": "mine_concepts",
    "probe": "fit_probe",
    "index": "build_index",
    "archives": "build_archives",
    "training_set": "export_training",
}
