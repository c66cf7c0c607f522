"""Expands patterns of addresses: braces and globs, on every file system.

fsspec's glob would list every folder down to the pattern's depth instead of those that match, takes hidden
names for matches, and knows no braces; pyarrow has no globs.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import islice

import pyarrow.fs as pafs

from configs.errors import UserError
from storage.addresses import list_folder, resolve, split
from storage.listing import Entry, entry_of, look_up

__all__ = ["expand", "expand_braces", "find", "fixed_folder"]

_WILDCARDS = frozenset("*?[")
_MOST_ADDRESSES = 1_000_000


def expand(pattern: str) -> list[str]:
    """The addresses of all files and folders that a pattern stands for (see :func:`find`)."""
    return [entry.address for entry in find(pattern)]


def find(pattern: str) -> list[Entry]:
    """All files and folders that a pattern stands for, with sizes and times; local addresses are absolute.

    ``{00000..00331}`` and ``{a,b}`` are spelled out, in this order, and must all exist; ``*``, ``?``, ``[..]``
    match inside a name, ``**`` any number of folders, sorted as text. Names that begin with a dot are matched
    only by a dot.

    Raises:
        UserError: something in the pattern matches nothing.
    """
    spelled = expand_braces(pattern)
    found: list[Entry] = []
    missing: list[str] = []
    for address, entry in zip(spelled, look_up(spelled), strict=True):
        if entry is not None:  # also of a name that holds a wildcard's character
            found.append(entry)
        elif _WILDCARDS.isdisjoint(address):
            missing.append(address)
        else:
            found.extend(_matches(address, pattern))
    if missing:
        several = f" (and {len(missing) - 1} more of {len(spelled)})" if len(missing) > 1 else ""
        raise UserError(f"{missing[0]}: no such file{several}{_origin(missing[0], pattern)}")
    return list({entry.address: entry for entry in found}.values())


def fixed_folder(pattern: str) -> str:
    """The folder that all matches of a pattern lie in, before its first wildcard or brace; empty without either."""
    parts = pattern.split("/")
    varying = [number for number, part in enumerate(parts) if not (_WILDCARDS | {"{"}).isdisjoint(part)]
    if not varying:
        return ""
    root, path = split("/".join(parts[: varying[0]]) or ("/" if pattern.startswith("/") else "."))
    return f"{root}{path}".rstrip("/")


def _matches(address: str, pattern: str) -> list[Entry]:
    matches = _glob(address)
    if not matches:
        raise UserError(f"{address}: no file matches{_origin(address, pattern)}")
    return matches


def _origin(address: str, pattern: str) -> str:
    return "" if address == pattern else f" (from {pattern})"


def expand_braces(pattern: str) -> list[str]:
    """``{00000..00331}`` (also with a step, ``{0..100..10}``) and ``{a,b}`` spelled out, innermost first.

    Raises:
        UserError: braces that are neither, or more than a million results.
    """
    spelled = list(islice(_spell(pattern, pattern), _MOST_ADDRESSES + 1))
    if len(spelled) > _MOST_ADDRESSES:
        raise UserError(f"{pattern}: stands for more than {_MOST_ADDRESSES:,} addresses")
    return list(dict.fromkeys(spelled))


def _spell(rest: str, pattern: str) -> Iterator[str]:
    match = re.search(r"\{([^{}]*)\}", rest)
    if match is None:
        yield rest
        return
    for word in _brace_words(match.group(1), pattern):
        yield from _spell(f"{rest[: match.start()]}{word}{rest[match.end() :]}", pattern)


def _brace_words(inside: str, pattern: str) -> Iterator[str]:
    interval = re.fullmatch(r"(\d+)\.\.(\d+)(?:\.\.([1-9]\d*))?", inside)
    if interval:
        first, last, step = interval.groups()
        padded = any(len(bound) > 1 and bound.startswith("0") for bound in (first, last))
        width = max(len(first), len(last)) if padded else 0
        sign = 1 if int(first) <= int(last) else -1
        return (f"{n:0{width}d}" for n in range(int(first), int(last) + sign, sign * int(step or 1)))
    if "," in inside:
        return iter(inside.split(","))
    raise UserError(
        f"{pattern}: {{{inside}}} is neither a range like {{00000..00331}} nor a list like {{a,b}}"
    )


def _glob(address: str) -> list[Entry]:
    """What matches, sorted as text; found folder by folder, so that only folders that can match are listed."""
    root, path = split(address)
    filesystem = resolve(address)[0]
    parts = path.split("/")
    fixed = next(number for number, part in enumerate(parts) if not _WILDCARDS.isdisjoint(part))
    start = "/".join(parts[:fixed]) or ("/" if path.startswith("/") else "")
    found = {start: pafs.FileInfo(start, pafs.FileType.Directory)}
    for number, part in enumerate(parts[fixed:], fixed):
        last = number == len(parts) - 1
        matches = [info for folder in found for info in _step(filesystem, folder, part, last)]
        found = {info.path: info for info in matches}
    return [entry_of(root, path, found[path]) for path in sorted(found)]


def _step(filesystem: pafs.FileSystem, folder: str, part: str, last: bool) -> Iterator[pafs.FileInfo]:
    """What one part of a pattern makes of a folder: folders to go on with, or at last anything."""
    if _WILDCARDS.isdisjoint(part):
        info = filesystem.get_file_info(posixpath.join(folder, part))
        if info.type != pafs.FileType.NotFound:
            yield info
        return
    deep = part == "**"
    if deep and not last:
        yield pafs.FileInfo(folder, pafs.FileType.Directory)
    wanted = (pafs.FileType.Directory,) if not last else (pafs.FileType.File,)
    if last and not deep:
        wanted = (pafs.FileType.File, pafs.FileType.Directory)
    for info in list_folder(filesystem, folder, recursive=deep):
        name = info.base_name
        hidden = name.startswith(".") and not part.startswith(".")
        if info.type in wanted and not hidden and (deep or fnmatchcase(name, part)):
            yield info
