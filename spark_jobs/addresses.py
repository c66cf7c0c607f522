"""One way to address files: local paths, file://, hdfs:// and s3a://, through pyarrow's file systems."""

from __future__ import annotations

import posixpath
import re
from functools import lru_cache
from pathlib import Path

import pyarrow.fs as pafs

from configs.errors import UserError

__all__ = ["expand", "join", "resolve"]


def join(folder: str, *names: str) -> str:
    """An address below a folder's address."""
    return posixpath.join(folder.rstrip("/") or "/", *names)


def resolve(address: str) -> tuple[pafs.FileSystem, str]:
    """The file system of an address and the path inside of it.

    Raises:
        UserError: a scheme that is not supported, or a server that cannot be reached.
    """
    scheme, found, rest = address.partition("://")
    if not found:
        return _local(), str(Path(address).absolute())
    if scheme == "file":
        return _local(), rest
    if scheme in ("s3", "s3a", "s3n"):
        return _s3(), rest
    try:
        return pafs.FileSystem.from_uri(address)
    except (OSError, ValueError) as error:
        raise UserError(f"{address}: {error}") from None


@lru_cache(maxsize=1)
def _local() -> pafs.LocalFileSystem:
    return pafs.LocalFileSystem()


@lru_cache(maxsize=1)
def _s3() -> pafs.FileSystem:
    # Region and credentials come from the environment or the machine's role, never from the address.
    import os

    return pafs.S3FileSystem(endpoint_override=os.environ.get("AWS_ENDPOINT_URL"))


def expand(pattern: str) -> list[str]:
    """All files an address stands for: ``{00000..00331}`` and ``{a,b}`` spelled out, ``*``, ``?``, ``[..]`` and
    ``**`` matched, a folder listed; in sorted order for globs, in the written order for braces.

    Raises:
        UserError: something matches no file.
    """
    found: list[str] = []
    for address in _expand_braces(pattern):
        if any(char in address for char in "*?["):
            matches = _glob(address)
            if not matches:
                raise UserError(
                    f"{address}: no file matches" + ("" if address == pattern else f" (from {pattern})")
                )
            found.extend(matches)
        else:
            filesystem, path = resolve(address)
            info = filesystem.get_file_info(path)
            if info.type == pafs.FileType.NotFound:
                raise UserError(
                    f"{address}: no such file" + ("" if address == pattern else f" (from {pattern})")
                )
            found.append(address)
    return list(dict.fromkeys(found))


def _expand_braces(pattern: str) -> list[str]:
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        return [pattern]
    inside = match.group(1)
    interval = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if interval:
        first, last = interval.groups()
        if int(last) < int(first) or int(last) - int(first) > 1_000_000:
            raise UserError(f"{pattern}: the range {{{inside}}} counts down or is longer than a million")
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        words = [str(number).zfill(width) for number in range(int(first), int(last) + 1)]
    elif "," in inside:
        words = inside.split(",")
    else:
        raise UserError(
            f"{pattern}: {{{inside}}} is neither a range like {{00000..00331}} nor a list like {{a,b}}"
        )
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [address for word in words for address in _expand_braces(f"{before}{word}{after}")]


def _glob(address: str) -> list[str]:
    """Files that match, listed from the last folder before the first wildcard."""
    scheme, found, _ = address.partition("://")
    prefix = f"{scheme}://" if found and scheme != "file" else ""
    filesystem, path = resolve(address)
    parts = path.split("/")
    fixed = next(number for number, part in enumerate(parts) if any(char in part for char in "*?["))
    base = "/".join(parts[:fixed]) or "/"
    expression = re.compile(_glob_expression("/".join(parts[fixed:])))
    deep = "**" in path or fixed < len(parts) - 1
    infos = filesystem.get_file_info(pafs.FileSelector(base, recursive=deep, allow_not_found=True))
    matches = []
    for info in infos:
        if info.type == pafs.FileType.Directory and not deep:
            continue
        inner = posixpath.relpath(info.path, base)
        if expression.fullmatch(inner) and info.type == pafs.FileType.File:
            matches.append(info.path)
    if prefix.startswith("hdfs"):
        server = address[len(prefix) :].partition("/")[0]
        return sorted(f"{prefix}{server}{match}" for match in matches)
    return sorted(prefix + match for match in matches)


def _glob_expression(pattern: str) -> str:
    """fnmatch, except that ``*`` and ``?`` stop at slashes and ``**/`` does not."""
    out, place = "", 0
    while place < len(pattern):
        rest = pattern[place:]
        if rest.startswith("**/"):
            out, place = out + "(?:.*/)?", place + 3
        elif rest[0] == "*":
            out, place = out + "[^/]*", place + 1
        elif rest[0] == "?":
            out, place = out + "[^/]", place + 1
        elif rest[0] == "[" and "]" in rest:
            end = rest.index("]")
            inside = rest[1:end].replace("\\", "\\\\")
            out += f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
            place += end + 1
        else:
            out, place = out + re.escape(rest[0]), place + 1
    return out
