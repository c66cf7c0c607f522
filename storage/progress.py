"""What is committed of a table that is being built: a file a wave that never changes, and a snapshot.

The snapshot says whose waves count, and how many: it is replaced at each commit and as small for the last
wave as for the first, and so is what a commit writes. A wave's file that no snapshot counts was cut off.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow.fs as pafs

from configs.errors import UserError
from storage.addresses import join, list_folder, resolve
from storage.manifest import Manifest, decode, encode, plain_unit, unit_of
from storage.small_files import read_small, write_atomically
from storage.units import UnitRecord

__all__ = ["begun_recipe", "commit_wave", "is_begun", "read_progress", "remove_progress", "told_of_damage"]

_AT_ONCE = 16


def commit_wave(manifest: Manifest, run: str, records: Sequence[UnitRecord]) -> None:
    """Add finished units to a table that is being built.

    Args:
        manifest: takes them in.
        run: a name that no other run of the job has, so that its waves are no other's.
        records: of the units.
    """
    number = manifest.waves.get(run, 0)
    inline = [] if manifest.waves else manifest.units  # of an older version, whose snapshot held all of them
    wave = json.dumps([plain_unit(unit) for unit in (*inline, *records)], default=str)
    write_atomically(_wave(manifest.workspace, manifest.table, manifest.recipe, run, number), wave.encode())
    manifest.units.extend(records)
    manifest.waves[run] = number + 1
    write_atomically(
        join(manifest.folder, f"_progress-{manifest.recipe}.json"), encode(replace(manifest, units=[]))
    )


def _wave(workspace: str, table: str, recipe: str, run: str, number: int) -> str:
    return join(workspace, table, f"_progress-{recipe}", f"{run}-{number:06d}.json")


def read_progress(workspace: str, table: str, recipe: str) -> Manifest | None:
    """What is committed of a table that is being built by this recipe, or None.

    Raises:
        UserError: a file of it is damaged or gone.
    """
    address = join(workspace, table, f"_progress-{recipe}.json")
    data = read_small(address)
    if data is None:
        return None
    with told_of_damage(address, workspace, table):
        manifest = decode(data, workspace, table)
        counted = [(run, number) for run, count in manifest.waves.items() for number in range(count)]
    waves = [_wave(workspace, table, recipe, run, number) for run, number in counted]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        contents = list(pool.map(read_small, waves))
    if None in contents and read_small(address) is None:
        return None  # the table became complete meanwhile
    for wave, content in zip(waves, contents, strict=True):
        with told_of_damage(wave, workspace, table):
            if content is None:
                raise ValueError("it is gone")
            manifest.units.extend(unit_of(table, entry) for entry in json.loads(content))
    return manifest


def is_begun(workspace: str, table: str) -> bool:
    """Whether anything is committed of a table that is being built, by whatever recipe."""
    return any(info.type == pafs.FileType.File for info in _files(workspace, table))


def begun_recipe(workspace: str, table: str) -> str | None:
    """The recipe by which a table is being built, the one that was worked on last; None if nothing is begun."""
    snapshots = [info for info in _files(workspace, table) if info.type == pafs.FileType.File]
    if not snapshots:
        return None
    last = max(snapshots, key=lambda info: info.mtime_ns or 0)
    return last.base_name.removeprefix("_progress-").partition(".")[0]


def remove_progress(manifest: Manifest) -> None:
    """Drop the state of building once the table is complete."""
    filesystem, _ = resolve(manifest.folder)
    # The snapshot first: waves without it are nothing, it without them is damage.
    found = _files(manifest.workspace, manifest.table)
    for info in sorted(found, key=lambda info: info.type == pafs.FileType.Directory):
        remove = filesystem.delete_file if info.type == pafs.FileType.File else filesystem.delete_dir
        remove(info.path)


def _files(workspace: str, table: str) -> list[pafs.FileInfo]:
    infos = list_folder(*resolve(join(workspace, table)))
    return [info for info in infos if info.base_name.startswith("_progress-")]


@contextlib.contextmanager
def told_of_damage(address: str, workspace: str, table: str) -> Iterator[None]:
    """One sentence for whatever is wrong with a manifest's content."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{address}: not a manifest of this software ({type(error).__name__}: {error}); "
            f"delete the folder {join(workspace, table)} and run its job again"
        ) from None
