"""A folder of single files, cut into runs that one task reads each."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from itertools import groupby

import pyarrow.fs as pafs

from corpora.members import MemberName, member_name
from corpora.samples import Suffixes

__all__ = ["cut_into_runs", "named_files", "own_files", "relative_files"]

NamedFile = tuple[str, MemberName | None]


def named_files(paths: Sequence[str], suffixes: Suffixes) -> list[NamedFile]:
    """Paths and what they say, in an order in which the files of a sample follow each other."""

    def place(file: NamedFile) -> tuple[str, str, str]:
        path, name = file
        return ("", "", path) if name is None else (name.stem, name.sample, path)

    return sorted(((path, member_name(path, suffixes)) for path in paths), key=place)


def own_files(infos: Sequence[pafs.FileInfo], suffixes: Suffixes) -> list[str]:
    """The names of the files of a root folder that are samples' files.

    A JSON or a table alone may be anything (img2dataset's statistics), so there must be an image or a caption in
    the folder, and a sample with one of them for a JSON.
    """
    names = named_files([i.base_name for i in infos if i.type == pafs.FileType.File], suffixes)
    telling = {*suffixes.images, *suffixes.captions}
    stems = {name.stem for _, name in names if name is not None and name.suffix in telling}
    if not stems:
        return []
    return [path for path, name in names if name is None or name.suffix != "json" or name.stem in stems]


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


def relative_files(infos: Sequence[pafs.FileInfo], folder: str) -> list[str]:
    """Paths below a folder of all files in a listing of it."""
    return [posixpath.relpath(info.path, folder) for info in infos if info.type == pafs.FileType.File]
