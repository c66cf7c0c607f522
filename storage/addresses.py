"""One way to address files: local paths, file://, hdfs:// and s3a://, through pyarrow's file systems.

Endpoint, region and credentials of S3 come from the environment (``AWS_ENDPOINT_URL``, ``AWS_REGION``,
``AWS_ACCESS_KEY_ID``, ...) or the machine's role, never from an address: addresses end in manifests and
reports.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path

import pyarrow.fs as pafs

from configs.errors import UserError

__all__ = ["expand", "expand_braces", "file_sizes", "is_readable", "join", "list_folder", "resolve"]

_S3 = ("s3", "s3a", "s3n")
_HDFS = ("hdfs", "viewfs")
_WILDCARDS = frozenset("*?[")
_MOST_ADDRESSES = 1_000_000


def join(folder: str, *names: str) -> str:
    """An address below a folder's address."""
    return posixpath.join(folder.rstrip("/") or "/", *names)


def resolve(address: str) -> tuple[pafs.FileSystem, str]:
    """The file system of an address and the path inside of it.

    Raises:
        UserError: a scheme that is not supported, credentials in the address, or a server that cannot be
            reached.
    """
    scheme, root, path = _split(address)
    if scheme in _S3:
        return _s3(), path
    if scheme in _HDFS:
        return _hdfs(root), path
    return _local(), path


def _split(address: str) -> tuple[str, str, str]:
    """(scheme, what stands before the path in an address, path on the file system)."""
    scheme, found, rest = address.partition("://")
    if not found:
        return "", "", str(Path(address).absolute())
    server, _, path = rest.partition("/")
    if scheme == "file":
        if server not in ("", "localhost"):
            raise UserError(
                f"{address}: write file:///path or just /path; '{server}' would be another machine"
            )
        return "", "", f"/{path}"
    if (scheme in _S3 and "@" in server) or ":" in server.rpartition("@")[0]:
        raise UserError(
            f"{scheme}://...@{server.rpartition('@')[2]}: an address must hold no credentials; "
            "set them in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        )
    if scheme in _S3:
        return scheme, f"{scheme}://", rest
    if scheme in _HDFS:
        return scheme, f"{scheme}://{server}", f"/{path}"
    raise UserError(f"{address}: '{scheme}://' is not supported; use a local path, hdfs:// or s3a://")


@lru_cache(maxsize=1)
def _local() -> pafs.LocalFileSystem:
    return pafs.LocalFileSystem()


@lru_cache(maxsize=8)
def _hdfs(root: str) -> pafs.FileSystem:
    try:
        return pafs.FileSystem.from_uri(f"{root}/")[0]
    except (OSError, ValueError) as error:
        raise UserError(f"{root}: {' '.join(str(error).split())}") from None


@lru_cache(maxsize=1)
def _s3() -> pafs.FileSystem:
    scheme, _, server = os.environ.get(
        "AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL", "")
    ).rpartition("://")
    region = os.environ.get("AWS_REGION", os.environ.get("AWS_DEFAULT_REGION"))
    return pafs.S3FileSystem(
        endpoint_override=server.rstrip("/") or None, scheme=scheme or None, region=region
    )


def list_folder(
    filesystem: pafs.FileSystem, path: str, recursive: bool = False, must_exist: bool = False
) -> list[pafs.FileInfo]:
    """What is in a folder, sorted by path; of one that does not exist nothing, or a FileNotFoundError."""
    selector = pafs.FileSelector(path, recursive=recursive, allow_not_found=not must_exist)
    return sorted(filesystem.get_file_info(selector), key=lambda info: info.path)


def file_sizes(addresses: Sequence[str]) -> list[int]:
    """Bytes of each file; 0 for folders and what is not there. Asked in batches, a file system at a time."""
    sizes: dict[str, int] = {}
    places = [(address, *resolve(address)) for address in dict.fromkeys(addresses)]
    for _, group in groupby(places, key=lambda place: id(place[1])):
        chosen = list(group)
        infos = chosen[0][1].get_file_info([path for _, _, path in chosen])
        sizes.update((place[0], info.size or 0) for place, info in zip(chosen, infos, strict=True))
    return [sizes[address] for address in addresses]


def is_readable(address: str) -> bool:
    """Whether every byte of a file can be read: tells a store that fails from a file that is damaged."""
    filesystem, path = resolve(address)
    try:
        with filesystem.open_input_stream(path, compression=None) as stream:
            while stream.read(1 << 20):
                pass
    except OSError:
        return False
    return True


def expand(pattern: str) -> list[str]:
    """The addresses of all files and folders that a pattern stands for; local ones are absolute.

    ``{00000..00331}`` and ``{a,b}`` are spelled out, in this order, and must all exist; ``*``, ``?``, ``[..]``
    match inside a name, ``**`` any number of folders, sorted as text. Names that begin with a dot are matched
    only by a dot.

    Raises:
        UserError: something in the pattern matches nothing.
    """
    found: list[str] = []
    plain: list[str] = []
    for address in expand_braces(pattern):
        if _WILDCARDS.isdisjoint(address) or _exists([address]) == [True]:
            plain.append(address)
            found.append(_absolute(address))
            continue
        matches = _glob(address)
        if not matches:
            raise UserError(f"{address}: no file matches{_origin(address, pattern)}")
        found.extend(sorted(matches))
    missing = [address for address, there in zip(plain, _exists(plain), strict=True) if not there]
    if missing:
        several = f" (and {len(missing) - 1} more of {len(plain)})" if len(missing) > 1 else ""
        raise UserError(f"{missing[0]}: no such file{several}{_origin(missing[0], pattern)}")
    return list(dict.fromkeys(found))


def _origin(address: str, pattern: str) -> str:
    return "" if address == pattern else f" (from {pattern})"


def _absolute(address: str) -> str:
    _, root, path = _split(address)
    return root + path


def _exists(addresses: Sequence[str]) -> list[bool]:
    """Whether each exists; all must be on one file system, which they are: braces stand in paths."""
    if not addresses:
        return []
    filesystem = resolve(addresses[0])[0]
    infos = filesystem.get_file_info([resolve(address)[1] for address in addresses])
    return [info.type != pafs.FileType.NotFound for info in infos]


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


def _glob(address: str) -> list[str]:
    """What matches, found folder by folder, so that only folders that can match are listed."""
    _, root, _ = _split(address)
    filesystem, path = resolve(address)
    parts = path.split("/")
    fixed = next(number for number, part in enumerate(parts) if not _WILDCARDS.isdisjoint(part))
    paths = ["/".join(parts[:fixed]) or "/"]
    for number, part in enumerate(parts[fixed:], fixed):
        last = number == len(parts) - 1
        paths = list(dict.fromkeys(match for path in paths for match in _step(filesystem, path, part, last)))
    return [root + path for path in paths]


def _step(filesystem: pafs.FileSystem, folder: str, part: str, last: bool) -> Iterator[str]:
    """What one part of a pattern makes of a folder: folders to go on with, or at last anything."""
    if _WILDCARDS.isdisjoint(part):
        path = posixpath.join(folder, part)
        if filesystem.get_file_info(path).type != pafs.FileType.NotFound:
            yield path
        return
    deep = part == "**"
    if deep and not last:
        yield folder
    wanted = (pafs.FileType.Directory,) if not last else (pafs.FileType.File,)
    if last and not deep:
        wanted = (pafs.FileType.File, pafs.FileType.Directory)
    for info in list_folder(filesystem, folder, recursive=deep):
        name = info.base_name
        hidden = name.startswith(".") and not part.startswith(".")
        if info.type in wanted and not hidden and (deep or fnmatchcase(name, part)):
            yield info.path
