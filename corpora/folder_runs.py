"""A folder of single files, cut into runs that one task reads each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from corpora.members import MemberName, member_name
from corpora.samples import Suffixes
from storage.addresses import join
from storage.listing import Entry, stamp_of

__all__ = ["FolderRun", "cut_into_runs", "folder_runs", "named_files", "own_runs", "relative_paths"]

NamedFile = tuple[str, MemberName | None]


@dataclass(frozen=True)
class FolderRun:
    """Some files of a folder (none are named: all), a label that tells it from others, and their stamp."""

    label: str
    folder: str
    files: tuple[str, ...]
    stamp: str


def folder_runs(folder: str, entries: Sequence[Entry], suffixes: Suffixes, samples: int) -> list[FolderRun]:
    """All files in a folder and the folders in it; ``entries`` is its listing.

    Where it is one run, no files are named: its task lists it again, so that no paths need to be sent.
    """
    runs = _runs(folder, relative_paths(entries, folder), entries, suffixes, samples)
    return runs if len(runs) > 1 else [FolderRun(folder, folder, (), stamp_of(entries))]


def own_runs(folder: str, entries: Sequence[Entry], suffixes: Suffixes, samples: int) -> list[FolderRun]:
    """The files right in a root folder that are samples' files; ``entries`` is its listing.

    A JSON or a table alone may be anything (img2dataset's statistics), so there must be an image or a caption in
    the folder, and a sample with one of them for a JSON.
    """
    names = named_files([entry.name for entry in entries if not entry.is_folder], suffixes)
    telling = {*suffixes.images, *suffixes.captions}
    stems = {name.stem for _, name in names if name is not None and name.suffix in telling}
    own = [path for path, name in names if name is None or name.suffix != "json" or name.stem in stems]
    return _runs(folder, own, entries, suffixes, samples) if stems else []


def _runs(
    folder: str, paths: Sequence[str], entries: Sequence[Entry], suffixes: Suffixes, samples: int
) -> list[FolderRun]:
    by_path = dict(zip(relative_paths(entries, folder), (e for e in entries if not e.is_folder), strict=True))
    return [
        FolderRun(
            join(folder, f"files-{start:08d}"), folder, tuple(files), stamp_of([by_path[f] for f in files])
        )
        for start, files in cut_into_runs(paths, suffixes, samples)
    ]


def relative_paths(entries: Sequence[Entry], folder: str) -> list[str]:
    """Paths below a folder of the files in a listing of it."""
    return [entry.address[len(folder.rstrip("/")) + 1 :] for entry in entries if not entry.is_folder]


def named_files(paths: Sequence[str], suffixes: Suffixes) -> list[NamedFile]:
    """Paths and what they say, in an order in which the files of a sample follow each other."""

    def place(file: NamedFile) -> tuple[str, str, str]:
        path, name = file
        return ("", "", path) if name is None else (name.stem, name.sample, path)

    return sorted(((path, member_name(path, suffixes)) for path in paths), key=place)


def cut_into_runs(paths: Sequence[str], suffixes: Suffixes, samples: int) -> list[tuple[int, list[str]]]:
    """(number of the first sample, paths) of runs of about so many samples; none is cut through.

    Samples that share what stands before the first dot stay together up to twice that many.
    """
    runs: list[tuple[int, list[str]]] = []
    count = start = 0
    for stem, files in groupby(named_files(paths, suffixes), key=lambda file: file[1] and file[1].stem):
        for number, (_, group) in enumerate(groupby(files, key=lambda file: file[1] and file[1].sample)):
            full = count - start >= (samples if number == 0 else 2 * samples)
            if not runs or full:
                runs.append((count, []))
                start = count
            runs[-1][1].extend(path for path, _ in group)
            count += stem is not None
    return runs
