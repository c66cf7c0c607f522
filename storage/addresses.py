"""One way to address files: local paths and the stores that pyarrow's file systems reach.

``hdfs://``, ``s3a://`` and ``gs://`` are Arrow's own; Azure's ``abfss://`` comes through fsspec, for which
``adlfs`` has to be installed. Endpoint, region and credentials come from the environment
(``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_ACCESS_KEY_ID``; ``GOOGLE_APPLICATION_CREDENTIALS``;
``AZURE_STORAGE_ACCOUNT_KEY``, ...) or the machine's role, never from an address: addresses end in manifests
and reports.
"""

from __future__ import annotations

import os
import posixpath
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import pyarrow.fs as pafs

from configs.errors import UserError

__all__ = [
    "is_local",
    "is_object_store",
    "is_readable",
    "join",
    "list_folder",
    "make_folder",
    "resolve",
    "split",
]

_S3 = ("s3", "s3a", "s3n")
_GCS = ("gs", "gcs")
_AZURE = ("abfs", "abfss")
_HDFS = ("hdfs", "viewfs")
# Arrow's own are 3 s and 3 attempts: a machine at full load takes longer to send a part of 10 MB.
_S3_SECONDS, _S3_ATTEMPTS = 60, 5
# Without credentials Google's client repeats its question for 15 minutes.
_GCS_RETRIES = timedelta(seconds=60)


def join(folder: str, *names: str) -> str:
    """An address below a folder's address; where a name begins with `../`, beside it, as stores know no such names."""
    inside = posixpath.join(*names) if names else ""
    while inside.startswith("../"):
        folder, inside = folder.rstrip("/").rpartition("/")[0], inside[3:]
    return posixpath.join(folder.rstrip("/") or "/", inside) if names else folder.rstrip("/") or "/"


def resolve(address: str) -> tuple[pafs.FileSystem, str]:
    """The file system of an address and the path inside of it.

    Raises:
        UserError: a scheme that is not supported, credentials in the address, or a server that cannot be
            reached.
    """
    root, path = split(address)
    scheme = root.partition("://")[0]
    if scheme in _S3:
        return _s3(), path
    if scheme in _GCS:
        return _gcs(), path
    if scheme in _AZURE:
        return _azure(root), path
    if scheme in _HDFS:
        return _hdfs(root), path
    return _local(), path


def split(address: str) -> tuple[str, str]:
    """(root, path on the file system), which joined are the address; of a local one the root is empty.

    Raises:
        UserError: a scheme that is not supported, or credentials in the address.
    """
    scheme, found, rest = address.partition("://")
    if not found:
        return "", str(Path(address).expanduser().absolute())
    server, _, path = rest.partition("/")
    if scheme == "file":
        if server not in ("", "localhost"):
            raise UserError(
                f"{address}: write file:///path or just /path; '{server}' would be another machine"
            )
        return "", f"/{path}"
    # In Azure's addresses the container stands before an @.
    if ("@" in server and scheme in (*_S3, *_GCS)) or ":" in server.rpartition("@")[0]:
        raise UserError(
            f"{scheme}://...@{server.rpartition('@')[2]}: an address must hold no credentials; "
            "set them in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        )
    if scheme in (*_S3, *_GCS):
        return f"{scheme}://", rest
    if scheme in _AZURE:
        return f"{scheme}://{server}/", path
    if scheme in _HDFS:
        return f"{scheme}://{server}", f"/{path}"
    raise UserError(
        f"{address}: '{scheme}://' is not supported; use a local path, hdfs://, s3a://, gs:// or abfss://"
    )


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
        endpoint_override=server.rstrip("/") or None,
        scheme=scheme or None,
        region=region,
        request_timeout=_S3_SECONDS,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=_S3_ATTEMPTS),
    )


@lru_cache(maxsize=1)
def _gcs() -> pafs.FileSystem:
    return pafs.GcsFileSystem(retry_time_limit=_GCS_RETRIES)


@lru_cache(maxsize=8)
def _azure(root: str) -> pafs.FileSystem:
    """Arrow's own AzureFileSystem came with pyarrow 16; Petastorm keeps us below."""
    from fsspec.core import url_to_fs

    try:
        filesystem, base = url_to_fs(root)
    except ImportError:
        raise UserError(f"{root}: Azure's addresses need the package adlfs: pip install adlfs") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{root}: {' '.join(str(error).split())}") from None
    return pafs.SubTreeFileSystem(base, pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)))


def is_local(filesystem: pafs.FileSystem) -> bool:
    """Whether its paths are paths of this machine (a network disk that is mounted here is)."""
    return isinstance(filesystem, pafs.LocalFileSystem)


def is_object_store(filesystem: pafs.FileSystem) -> bool:
    """Whether folders are but the front of names: nothing has to be made before a file is written."""
    return filesystem.type_name in ("s3", "gcs")


def make_folder(filesystem: pafs.FileSystem, path: str) -> None:
    """Make a folder with those above it, where a file needs one (on S3 that were a PUT for each of them)."""
    if not is_object_store(filesystem):
        filesystem.create_dir(path, recursive=True)


def list_folder(
    filesystem: pafs.FileSystem, path: str, recursive: bool = False, must_exist: bool = False
) -> list[pafs.FileInfo]:
    """What is in a folder, sorted by path; of one that does not exist nothing, or a FileNotFoundError."""
    selector = pafs.FileSelector(path, recursive=recursive, allow_not_found=not must_exist)
    return sorted(filesystem.get_file_info(selector), key=lambda info: info.path)


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
