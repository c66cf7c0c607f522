"""One way to address files: local paths, file://, hdfs:// and s3a://, through pyarrow's file systems."""

from __future__ import annotations

import posixpath
from functools import lru_cache
from pathlib import Path

import pyarrow.fs as pafs

from configs.errors import UserError

__all__ = ["join", "resolve"]


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
