"""Readers of input shards: each yields the samples of one shard as raw bytes, in order, whatever is broken.

No member of an archive is written to disk, and no name from an archive or a table becomes a path outside
of the folder it belongs to.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from configs.errors import UserError
from configs.schema import CorpusConfig, IngestConfig
from spark_jobs.addresses import expand, join, resolve
from spark_jobs.captions import Problem, unescape
from spark_jobs.reasons import Reason

__all__ = ["Sample", "Shard", "list_shards", "read_samples"]

_IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
_TABLE_CHUNK = 16 << 20  # bytes of a CSV/TSV file that make one shard
_ARCHIVE_ERRORS = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    OSError,
    pa.ArrowInvalid,
    pa.ArrowNotImplementedError,
)


@dataclass(frozen=True)
class Shard:
    """One input file (or a range of a large table, or a folder of files)."""

    corpus: str
    name: str
    address: str
    format: str
    options: CorpusConfig = field(repr=False, default_factory=CorpusConfig)
    start: int = 0
    end: int = 0


@dataclass
class Sample:
    """One image-caption pair as found; or what is wrong with it (or with the shard, then ``name`` is "")."""

    name: str
    image: bytes | None = None
    caption: bytes | str | None = None
    problem: Problem | None = None


def list_shards(corpus: CorpusConfig) -> list[Shard]:
    """The shards of a corpus, in order, with names that are unique in it.

    Raises:
        UserError: nothing matches ``path``, or ``image_root`` is missing.
    """
    addresses = expand(corpus.path)
    if corpus.format in ("table", "yfcc14m"):
        if not corpus.image_root:
            raise UserError(
                f"corpus '{corpus.name}': image_root is missing, the folder with the images of {corpus.path}"
            )
        return _table_shards(corpus, addresses)
    addresses = _list_folders(corpus, addresses)
    names = _short_names(addresses)
    return [
        Shard(corpus.name, name, address, corpus.format, corpus)
        for name, address in zip(names, addresses, strict=True)
    ]


_SUFFIXES = {"webdataset": (".tar",), "parquet": (".parquet",)}


def _list_folders(corpus: CorpusConfig, addresses: Sequence[str]) -> list[str]:
    """A folder stands for the shards in it; of the format `files`, for its folders of files."""
    found: list[str] = []
    for address in addresses:
        filesystem, path = resolve(address)
        if filesystem.get_file_info(path).type != pafs.FileType.Directory:
            if corpus.format == "files":
                raise UserError(
                    f"corpus '{corpus.name}': {address} is a file; format: files takes a folder of folders"
                )
            found.append(address)
            continue
        infos = sorted(filesystem.get_file_info(pafs.FileSelector(path)), key=lambda info: info.path)
        if corpus.format == "files":
            folders = [info.base_name for info in infos if info.type == pafs.FileType.Directory]
            found.extend([join(address, name) for name in folders] or [address])
        else:
            wanted = _SUFFIXES[corpus.format]
            files = [
                info.base_name
                for info in infos
                if info.type == pafs.FileType.File and info.base_name.endswith(wanted)
            ]
            if not files:
                raise UserError(f"corpus '{corpus.name}': no {' or '.join(wanted)} files in {address}")
            found.extend(join(address, name) for name in files)
    return found


def _short_names(addresses: Sequence[str]) -> list[str]:
    """Addresses without what they share and without suffix; characters that are awkward in keys replaced."""
    common = posixpath.commonpath(addresses) if len(addresses) > 1 else posixpath.dirname(addresses[0])
    names = []
    for address in addresses:
        stem = re.sub(r"\.(tar|parquet|csv|tsv)(\.gz)?$", "", posixpath.relpath(address, common))
        names.append(re.sub(r"[^A-Za-z0-9_./-]", "_", stem).replace("..", "__"))
    if len(set(names)) != len(names):
        twice = sorted(name for name in names if names.count(name) > 1)[0]
        raise UserError(f"two shards would both be called '{twice}'; rename one of the files")
    return names


def _table_shards(corpus: CorpusConfig, addresses: Sequence[str]) -> list[Shard]:
    shards = []
    for name, address in zip(_short_names(addresses), addresses, strict=True):
        filesystem, path = resolve(address)
        size = filesystem.get_file_info(path).size or 0
        compressed = address.endswith(".gz")
        edges = [0] if compressed else list(range(0, max(size, 1), _TABLE_CHUNK))
        for number, start in enumerate(edges):
            end = size if compressed or number == len(edges) - 1 else edges[number + 1]
            label = name if len(edges) == 1 else f"{name}-{number:05d}"
            shards.append(Shard(corpus.name, label, address, corpus.format, corpus, start, end))
    return shards


def read_samples(shard: Shard, limits: IngestConfig) -> Iterator[Sample]:
    """All samples of a shard. What is wrong with the shard itself comes as a last sample with a problem."""
    readers = {
        "webdataset": _read_tar,
        "parquet": _read_parquet,
        "files": _read_files,
        "table": _read_table,
        "yfcc14m": _read_yfcc,
    }
    count = 0
    try:
        for sample in readers[shard.format](shard, limits):
            count += 1
            yield sample
    except _ARCHIVE_ERRORS as error:
        reason = Reason.TRUNCATED_SHARD if count else Reason.UNREADABLE_SHARD
        text = " ".join(str(error).split())[:200]
        yield Sample("", problem=Problem(reason, f"{type(error).__name__}: {text} (after {count} samples)"))


def _assemble(name: str, parts: dict[str, bytes | Problem]) -> Sample:
    """A sample from its members by suffix: image, .txt, else the caption in .json."""
    image = next((parts[suffix] for suffix in _IMAGES if suffix in parts), None)
    caption: bytes | str | Problem | None = parts.get("txt")
    if caption is None and isinstance(parts.get("json"), bytes):
        caption = _caption_of_json(parts["json"])
    for part in (image, caption):
        if isinstance(part, Problem):
            return Sample(name, problem=part)
    assert not isinstance(image, Problem)
    assert not isinstance(caption, Problem)
    return Sample(name, image, caption)


def _caption_of_json(data: bytes | Problem) -> str | None:
    assert isinstance(data, bytes)
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return None
    caption = values.get("caption") if isinstance(values, dict) else None
    return caption if isinstance(caption, str) else None


def _read_tar(shard: Shard, limits: IngestConfig) -> Iterator[Sample]:
    """A webdataset tar: members that follow each other and share the name before the first dot are a sample."""
    filesystem, path = resolve(shard.address)
    with filesystem.open_input_stream(path, buffer_size=1 << 20) as stream:
        name: str | None = None
        parts: dict[str, bytes | Problem] = {}
        try:
            with tarfile.open(fileobj=_Reader(stream), mode="r|*") as tar:
                for member in tar:
                    if not member.isreg():
                        continue
                    folder, _, base = member.name.rpartition("/")
                    stem, _, suffix = base.partition(".")
                    suffix = suffix.lower()
                    if not stem or not suffix:
                        continue
                    full = f"{folder}/{stem}" if folder else stem
                    if full != name or suffix in parts:
                        before, found = name, parts
                        name, parts = full, {}
                        if before is not None and found:
                            yield _assemble(before, found)
                    if suffix in (*_IMAGES, "txt", "json"):
                        parts[suffix] = _member_bytes(tar, member, limits, suffix)
        except EOFError as error:
            raise tarfile.ReadError(f"unexpected end of data: {error}") from None
        except (tarfile.ReadError, OSError):
            # The sample at hand may be whole, its last member cut: it counts only if image and caption are.
            if name is not None and any(suffix in parts for suffix in _IMAGES) and "txt" in parts:
                yield _assemble(name, parts)
            raise
        if name is not None and parts:
            yield _assemble(name, parts)


def _member_bytes(
    tar: tarfile.TarFile, member: tarfile.TarInfo, limits: IngestConfig, suffix: str
) -> bytes | Problem:
    is_image = suffix in _IMAGES
    if member.size > (limits.max_image_bytes if is_image else 64 << 20):
        return Problem(Reason.IMAGE_TOO_BIG, f"{member.size} bytes in {suffix}")
    handle = tar.extractfile(member)
    data = handle.read() if handle is not None else b""
    if len(data) != member.size:
        raise tarfile.ReadError(f"unexpected end of data in {member.name[:80]!r}")
    return data


class _Reader(io.RawIOBase):
    """What tarfile needs of a stream (pyarrow's has no readinto in all versions)."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size if size >= 0 else None)


def _read_parquet(shard: Shard, _limits: IngestConfig) -> Iterator[Sample]:
    """img2dataset's parquet output: image bytes beside the metadata."""
    filesystem, path = resolve(shard.address)
    options = shard.options
    with filesystem.open_input_file(path) as source:
        file = pq.ParquetFile(source)
        names = file.schema_arrow.names
        image = next((name for name in (options.image_column, *_IMAGES) if name in names), None)
        if image is None or options.caption_column not in names:
            text = f"needs an image column ({options.image_column} or jpg, png, webp) and '{options.caption_column}'; has {', '.join(names)}"
            yield Sample("", problem=Problem(Reason.UNREADABLE_SHARD, text[:300]))
            return
        columns = [image, options.caption_column, *(["key"] if "key" in names else [])]
        row = 0
        for batch in file.iter_batches(batch_size=256, columns=columns):
            keys = (
                batch.column("key").cast(pa.string()).to_pylist()
                if "key" in names
                else range(row, row + len(batch))
            )
            for number, key in enumerate(keys):
                value = batch.column(image)[number].as_py()
                caption = batch.column(options.caption_column)[number].as_py()
                yield Sample(str(key), value if isinstance(value, bytes) else None, caption)
            row += len(batch)


def _read_files(shard: Shard, limits: IngestConfig) -> Iterator[Sample]:
    """img2dataset's files output: one folder of KEY.jpg, KEY.txt, KEY.json."""
    filesystem, path = resolve(shard.address)
    infos = sorted(filesystem.get_file_info(pafs.FileSelector(path)), key=lambda info: info.base_name)
    groups: dict[str, dict[str, pafs.FileInfo]] = {}
    for info in infos:
        stem, _, suffix = info.base_name.partition(".")
        if info.type == pafs.FileType.File and suffix.lower() in (*_IMAGES, "txt", "json") and stem:
            groups.setdefault(stem, {})[suffix.lower()] = info
    for stem, members in groups.items():
        if not any(suffix in members for suffix in _IMAGES) and "txt" not in members:
            continue
        parts: dict[str, bytes | Problem] = {}
        for suffix, info in members.items():
            if (info.size or 0) > (limits.max_image_bytes if suffix in _IMAGES else 64 << 20):
                parts[suffix] = Problem(Reason.IMAGE_TOO_BIG, f"{info.size} bytes")
                continue
            with filesystem.open_input_stream(info.path) as stream:
                parts[suffix] = stream.read()
        yield _assemble(stem, parts)


def _table_lines(shard: Shard) -> Iterator[tuple[int, bytes]]:
    """Whole lines of a byte range: a line belongs to the range in which it begins. With its byte position."""
    filesystem, path = resolve(shard.address)
    if shard.address.endswith(".gz"):
        with filesystem.open_input_stream(path) as stream:
            data = stream.read()
        position = 0
        for line in data.splitlines(keepends=True):
            yield position, line
            position += len(line)
        return
    with filesystem.open_input_file(path) as source:
        position = shard.start
        if shard.start:
            source.seek(shard.start - 1)
            position += len(_rest_of_line(source)) - 1
        source.seek(position)
        data = source.read(max(0, shard.end - position))
        data += _rest_of_line(source) if data and not data.endswith(b"\n") else b""
    for line in data.splitlines(keepends=True):
        yield position, line
        position += len(line)


def _rest_of_line(source: pa.NativeFile) -> bytes:
    out = b""
    while True:
        block = source.read(1 << 16)
        end = block.find(b"\n")
        if end >= 0:
            return out + block[: end + 1]
        out += block
        if not block:
            return out


def _read_table(shard: Shard, limits: IngestConfig) -> Iterator[Sample]:
    """A CSV/TSV of (path, caption), with or without a header; one line a sample."""
    options = shard.options
    delimiter = "\t" if ".tsv" in shard.address or ".txt" in shard.address else ","
    header = _header(shard, delimiter)
    columns = (0, 1)
    if header is not None:
        for name in (options.image_column, options.caption_column):
            if name not in header:
                text = f"column '{name}' is not in the header ({', '.join(header)[:200]}); set image_column and caption_column"
                yield Sample("", problem=Problem(Reason.UNREADABLE_SHARD, text))
                return
        columns = (header.index(options.image_column), header.index(options.caption_column))
    images = _ImageFolder(options.image_root, limits)
    for position, line in _table_lines(shard):
        if position == 0 and header is not None:
            continue
        if not line.strip():
            continue
        name = f"{position:012d}"
        try:
            fields = next(csv.reader([line.decode("utf-8").rstrip("\r\n")], delimiter=delimiter))
        except UnicodeDecodeError:
            yield Sample(name, problem=Problem(Reason.CAPTION_NOT_UTF8, f"line at byte {position}"))
            continue
        except csv.Error as error:
            yield Sample(name, problem=Problem(Reason.MISSING_CAPTION, f"line at byte {position}: {error}"))
            continue
        if len(fields) <= max(columns):
            yield Sample(
                name, problem=Problem(Reason.MISSING_CAPTION, f"{len(fields)} columns at byte {position}")
            )
            continue
        path, caption = fields[columns[0]], fields[columns[1]]
        data = images.read(path)
        yield (
            Sample(name, caption=caption, problem=data)
            if isinstance(data, Problem)
            else Sample(name, data, caption)
        )


def _header(shard: Shard, delimiter: str) -> list[str] | None:
    filesystem, path = resolve(shard.address)
    with filesystem.open_input_stream(path) as stream:
        first = stream.read(1 << 16).split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r")
    fields = next(csv.reader([first], delimiter=delimiter), [])
    names = (shard.options.image_column, shard.options.caption_column)
    looks_like_path = any(field.lower().endswith(_IMAGES) for field in fields)
    return fields if any(name in fields for name in names) or not looks_like_path else None


class _ImageFolder:
    """Reads images below a root, never outside of it."""

    def __init__(self, root: str, limits: IngestConfig) -> None:
        self._filesystem, self._root = resolve(root)
        self._limits = limits

    def read(self, path: str) -> bytes | Problem:
        inner = posixpath.normpath(path)
        if inner.startswith(("/", "..")) or "://" in path or "\x00" in path:
            return Problem(Reason.PATH_OUTSIDE, path[:200])
        full = posixpath.join(self._root, inner)
        info = self._filesystem.get_file_info(full)
        if info.type != pafs.FileType.File:
            return Problem(Reason.MISSING_IMAGE, path[:200])
        if (info.size or 0) > self._limits.max_image_bytes:
            return Problem(Reason.IMAGE_TOO_BIG, f"{info.size} bytes")
        with self._filesystem.open_input_stream(full) as stream:
            return stream.read()


def _read_yfcc(shard: Shard, limits: IngestConfig) -> Iterator[Sample]:
    """YFCC14M: lines of (id, hash, title, description) and images in zips or folders.

    The subset's TSV gives photo hash and texts; the image of hash ``abcdef...`` is
    ``abc/def/abcdef....jpg`` below ``image_root``, either a file or a member of the zip ``abc.zip`` (or
    ``images.zip``). Texts are URL-quoted HTML; the caption is "title description", as CLIP's subset uses it.
    """
    images = _ImageFolder(shard.options.image_root, limits)
    zips = _Zips(shard.options.image_root, limits)
    for position, line in _table_lines(shard):
        if not line.strip():
            continue
        try:
            fields = line.decode("utf-8").rstrip("\r\n").split("\t")
        except UnicodeDecodeError:
            yield Sample(
                f"{position:012d}", problem=Problem(Reason.CAPTION_NOT_UTF8, f"line at byte {position}")
            )
            continue
        if len(fields) < 3 or not re.fullmatch(r"[0-9a-fA-F]{6,64}", fields[1]):
            yield Sample(
                f"{position:012d}",
                problem=Problem(
                    Reason.MISSING_CAPTION, f"not (id, hash, title, description) at byte {position}"
                ),
            )
            continue
        number, digest, *texts = fields
        name = re.sub(r"[^A-Za-z0-9_-]", "_", number) or f"{position:012d}"
        caption = " ".join(part for part in (unescape(text).strip() for text in texts[:2]) if part)
        inner = f"{digest[:3]}/{digest[3:6]}/{digest}.jpg"
        data = zips.read(digest, inner)
        if data is None:
            data = images.read(inner)
        yield (
            Sample(name, caption=caption, problem=data)
            if isinstance(data, Problem)
            else Sample(name, data, caption)
        )


class _Zips:
    """Members of the zips of a folder, read without extraction."""

    def __init__(self, root: str, limits: IngestConfig) -> None:
        self._root, self._limits = root, limits
        self._open: dict[str, zipfile.ZipFile | None] = {}

    def read(self, digest: str, inner: str) -> bytes | Problem | None:
        for zip_name in (f"{digest[:3]}.zip", "images.zip"):
            archive = self._archive(zip_name)
            if archive is None:
                continue
            for member in (inner, f"{digest}.jpg", inner.partition("/")[2]):
                try:
                    info = archive.getinfo(member)
                except KeyError:
                    continue
                if info.file_size > self._limits.max_image_bytes:
                    return Problem(Reason.IMAGE_TOO_BIG, f"{info.file_size} bytes")
                try:
                    return archive.read(info)
                except (zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
                    return Problem(Reason.UNREADABLE_IMAGE, f"{zip_name}: {error}"[:200])
        return None

    def _archive(self, name: str) -> zipfile.ZipFile | None:
        if name not in self._open:
            filesystem, path = resolve(join(self._root, name))
            if len(self._open) > 16:
                self._open.clear()
            if filesystem.get_file_info(path).type != pafs.FileType.File:
                self._open[name] = None
            else:
                self._open[name] = zipfile.ZipFile(filesystem.open_input_file(path))  # type: ignore[arg-type]
        return self._open[name]
