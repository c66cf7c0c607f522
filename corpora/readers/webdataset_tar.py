"""Reads webdataset tars, as img2dataset writes them, as a stream; nothing is extracted to disk."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Any, Self

import pyarrow as pa

from configs.schema import IngestConfig
from corpora.captions import Problem, longest_caption_bytes
from corpora.members import MemberName, Members, member_name
from corpora.reasons import Reason
from corpora.samples import MOST_JSON_BYTES, Part, Sample, Suffixes, too_big
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
    """Members that follow each other and share a name are a sample (see :class:`corpora.members.Members`).

    Links are not followed: a sample of links is a reject. Where the archive breaks off, a sample whose image
    and caption came before that point still counts.

    Raises:
        tarfile.ReadError: the archive is no tar, breaks off, or goes on behind its end mark.
    """
    filesystem, path = resolve(shard.address)
    # tarfile unpacks gz by itself and, where it is cut, still gives what came before; Arrow does not.
    compression = "detect" if path.endswith(".zst") else None
    suffixes = Suffixes.of(shard.options, limits.columns)
    members = Members(suffixes)
    with filesystem.open_input_stream(path, compression=compression, buffer_size=1 << 20) as stream:
        try:
            with tarfile.open(fileobj=_Stream(stream), mode="r|*", tarinfo=_Header, bufsize=1 << 18) as tar:  # type: ignore[arg-type]
                for member, name, content in _files(tar, suffixes, limits):
                    yield from members.add(member, name, content)
                _check_end(tar)
        except (tarfile.TarError, OSError, EOFError):
            yield from members.finish(broken=True)
            raise
        yield from members.finish()


def _check_end(tar: tarfile.TarFile) -> None:
    """Archives that were joined with `cat` go on behind the first one's end mark; tarfile would not say so."""
    source: Any = tar.fileobj
    while block := source.read(1 << 18):
        if block.count(0) != len(block):
            raise tarfile.ReadError("the file goes on behind the archive's end mark (joined archives?)")


def _files(
    tar: tarfile.TarFile, suffixes: Suffixes, limits: IngestConfig
) -> Iterator[tuple[str, MemberName | None, Part | None]]:
    """(path, what it says, content) of all members but folders."""
    while (member := tar.next()) is not None:
        tar.members.clear()  # else tarfile keeps a record of every member
        if member.isdir():
            continue
        name = member_name(member.name, suffixes)
        wanted = name is not None and name.suffix in suffixes.known
        yield member.name, name, _content(tar, member, name.suffix, suffixes, limits) if wanted else None  # type: ignore[union-attr]


def _content(
    tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str, suffixes: Suffixes, limits: IngestConfig
) -> bytes | Problem:
    image = suffix in suffixes.images
    if not member.isreg():
        what = f"a link to {member.linkname[:80]}" if member.linkname else "not a file"
        return Problem(Reason.MISSING_IMAGE if image else Reason.MISSING_CAPTION, what)
    if image and member.size > limits.max_image_bytes:
        return too_big(member.size)
    if suffix == "json" and member.size > MOST_JSON_BYTES:
        return Problem(Reason.MISSING_CAPTION, f"JSON of {member.size} bytes")
    text = not image and suffix != "json"
    size = min(member.size, longest_caption_bytes(limits)) if text else member.size
    source = tar.extractfile(member)
    data = source.read(size) if source is not None else b""
    if len(data) != size:
        raise tarfile.ReadError(f"unexpected end of data in {member.name[:80]!r}")
    return data
