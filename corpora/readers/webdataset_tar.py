"""Reads webdataset tars, as img2dataset writes them, as a stream; nothing is extracted to disk."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Any, Self

import pyarrow as pa

from configs.schema import IngestConfig
from corpora.captions import Problem, longest_caption_bytes
from corpora.reasons import Reason
from corpora.samples import CAPTIONS, IMAGES, MOST_JSON_BYTES, Sample, assemble, split_member_name, too_big
from corpora.shards import Shard
from storage.addresses import resolve

__all__ = ["read_tar"]

_EXTENSION_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_MOST_HEADER_BYTES = 1 << 20


class _Header(tarfile.TarInfo):
    """A member's header. tarfile ends quietly where a header is cut, damaged or absent; this one says so."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # the mark that closes an archive
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error}" if buf else "the archive ends without its end mark") from None
        if header.size < 0 or (header.type in _EXTENSION_HEADERS and header.size > _MOST_HEADER_BYTES):
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


class _Stream:
    """What tarfile needs of a stream."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        return self._stream.read(size)


def read_tar(shard: Shard, limits: IngestConfig) -> Iterator[Sample]:
    """Members that follow each other and share the name before the first dot are a sample.

    Links and devices are passed over. Where the archive breaks off, a sample whose image and caption came
    before that point still counts.

    Raises:
        tarfile.ReadError: the archive is no tar, breaks off, or goes on behind its end mark.
    """
    filesystem, path = resolve(shard.address)
    # tarfile unpacks gz by itself and, where it is cut, still gives what came before; Arrow does not.
    compression = "detect" if path.endswith(".zst") else None
    with filesystem.open_input_stream(path, compression=compression, buffer_size=1 << 20) as stream:
        name, parts = "", {}
        try:
            with tarfile.open(fileobj=_Stream(stream), mode="r|*", tarinfo=_Header, bufsize=1 << 18) as tar:  # type: ignore[arg-type]
                for member_name, suffix, data in _members(tar, limits):
                    if member_name != name or suffix in parts:
                        before, found = name, parts
                        name, parts = member_name, {}
                        if found:
                            yield assemble(before, found)
                    parts[suffix] = data
                _check_end(tar)
        except (tarfile.TarError, OSError, EOFError):
            last = assemble(name, parts)
            if last.problem is not None or (last.image is not None and last.caption is not None):
                yield last
            raise
        if parts:
            yield assemble(name, parts)


def _check_end(tar: tarfile.TarFile) -> None:
    """Archives that were joined with `cat` go on behind the first one's end mark; tarfile would not say so."""
    source: Any = tar.fileobj
    while block := source.read(1 << 18):
        if block.count(0) != len(block):
            raise tarfile.ReadError("the file goes on behind the archive's end mark (joined archives?)")


def _members(tar: tarfile.TarFile, limits: IngestConfig) -> Iterator[tuple[str, str, bytes | Problem]]:
    """(sample, suffix, content) of the members that matter."""
    while (member := tar.next()) is not None:
        tar.members.clear()  # else tarfile keeps a record of every member
        name, suffix = split_member_name(member.name)
        if member.isreg() and name and suffix in (*IMAGES, *CAPTIONS, "json"):
            yield name, suffix, _content(tar, member, suffix, limits)


def _content(
    tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str, limits: IngestConfig
) -> bytes | Problem:
    if suffix in IMAGES and member.size > limits.max_image_bytes:
        return too_big(member.size)
    if suffix == "json" and member.size > MOST_JSON_BYTES:
        return Problem(Reason.MISSING_CAPTION, f"JSON of {member.size} bytes")
    wanted = min(member.size, longest_caption_bytes(limits)) if suffix in CAPTIONS else member.size
    source = tar.extractfile(member)
    data = source.read(wanted) if source is not None else b""
    if len(data) != wanted:
        raise tarfile.ReadError(f"unexpected end of data in {member.name[:80]!r}")
    return data
