"""A corpus of which one sample in twenty is broken, in every way that the web knows."""

from __future__ import annotations

import io
import struct
import tarfile
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from pyspark.sql import SparkSession

from corpora.reasons import Reason
from storage import tables
from tests import harness
from tests.faults.calm import Outcome, run_here

# What a decoding task may hold above an idle one; a bomb would take 10 GB, the EXIF data 30 MB.
MOST_MEGABYTES = 600


def _picture(**options: object) -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((72, 64), Image.Resampling.BILINEAR)


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _bomb() -> bytes:
    """A PNG of a few kB whose header promises 50,000 x 50,000 pixels."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + zlib.compress(b"\0" * 1_000_000), b"IEND")
    body = b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _heavy_exif() -> bytes:
    """A JPEG with 30 MB of metadata in front of a small picture."""
    data = _encoded(_picture(), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", 65_535) + b"Exif\0\0" + b"x" * (65_535 - 8)
    return data[:2] + segment * 458 + data[2:]


def _animation() -> bytes:
    frames = [_picture().rotate(30 * turn) for turn in range(6)]
    return _encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


GOOD_CAPTION = b"a dog near a river"
CAPTIONS = {
    "caption_not_utf8": b"a caf\xe9 near a \xff\xfe river",
    "long_caption": b"dog and river " * 75_000,
}
IMAGES: dict[str, Callable[[], bytes]] = {
    "zero_bytes": lambda: b"",
    "html": lambda: b"<!DOCTYPE html><html><body>404 not found</body></html>",
    "bomb": _bomb,
    "one_pixel": lambda: _encoded(_picture().resize((1, 1)), "PNG"),
    "cut": lambda: _encoded(_picture(), "JPEG")[:-400],
    "cmyk": lambda: _encoded(_picture().convert("CMYK"), "JPEG"),
    "sixteen_bit": lambda: _encoded(Image.fromarray(np.arange(4608, dtype=np.uint16).reshape(64, 72)), "PNG"),
    "animated": _animation,
    "heavy_exif": _heavy_exif,
}
REJECTED = {
    "zero_bytes": Reason.EMPTY_IMAGE,
    "html": Reason.UNREADABLE_IMAGE,
    "bomb": Reason.TOO_MANY_PIXELS,
    "one_pixel": Reason.TOO_FEW_PIXELS,
    "cut": Reason.TRUNCATED_IMAGE,
    "caption_not_utf8": Reason.CAPTION_NOT_UTF8,
    "no_image": Reason.MISSING_IMAGE,
    "no_caption": Reason.MISSING_CAPTION,
}
"""Kinds that are rejected, and why; all others become pairs."""
KINDS = (*IMAGES, *CAPTIONS, "no_image", "no_caption", "escape")


@dataclass
class Expected:
    """What must come of the corpus: keys of the pairs, and reason by key of the rejects."""

    pairs: set[str] = field(default_factory=set)
    rejects: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """Pairs and rejects together."""
        return len(self.pairs) + self.rejects.total()


def write_corpus(folder: Path, shards: int = 20, samples: int = 60) -> Expected:
    """Tars with the same sample names in each; one is cut, one is HTML, one is empty."""
    folder.mkdir(parents=True)
    expected, good, kinds = Expected(), _encoded(_picture(), "JPEG"), list(KINDS)
    made = {name: make() for name, make in IMAGES.items()}
    for shard in range(shards - 3):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for sample in range(samples):
                broken = sample % 20 == 7
                kind = kinds[(shard * samples + sample) // 20 % len(kinds)] if broken else ""
                _add_sample(tar, kind, f"{sample:04d}", made.get(kind, good))
                _expect(expected, f"web/{shard:05d}", f"{sample:04d}", kind)
            # A name that is there already: the first one counts.
            _add_sample(tar, "", "0000", good)
            expected.rejects[f"web/{shard:05d}/0000", Reason.DUPLICATE_KEY.value] += 1
    whole = (folder / "00000.tar").read_bytes()
    # No end mark, and the last sample's caption is gone with it.
    (folder / "cut.tar").write_bytes(whole[: _cut_position(folder / "00000.tar")])
    (folder / "html.tar").write_bytes(b"<!DOCTYPE html><html>" + b"moved " * 500)
    (folder / "none.tar").write_bytes(b"")
    for key in [key for key in expected.pairs if key.startswith("web/00000/")]:
        expected.pairs.add(key.replace("/00000/", "/cut/"))
    for (key, reason), count in list(expected.rejects.items()):
        if key.startswith("web/00000/") and reason != Reason.DUPLICATE_KEY.value:
            expected.rejects[key.replace("/00000/", "/cut/"), reason] += count
    expected.rejects["web/cut/", Reason.TRUNCATED_SHARD.value] += 1
    expected.rejects["web/html/", Reason.UNREADABLE_SHARD.value] += 1
    expected.rejects["web/none/", Reason.UNREADABLE_SHARD.value] += 1
    return expected


def _cut_position(path: Path) -> int:
    """In the middle of the image of the last sample, the repeated one."""
    with tarfile.open(path) as tar:
        last = [member for member in tar if member.name.endswith(".jpg")][-1]
    return last.offset_data + last.size // 2


def _add_sample(tar: tarfile.TarFile, kind: str, name: str, image: bytes) -> None:
    # Nothing of this name may appear anywhere on the disk.
    stem = f"../../../escape-{name}" if kind == "escape" else name
    members = {"jpg": image, "txt": CAPTIONS.get(kind, GOOD_CAPTION)}
    if kind in ("no_image", "no_caption"):
        del members["jpg" if kind == "no_image" else "txt"]
    for suffix, data in members.items():
        info = tarfile.TarInfo(f"{stem}.{suffix}")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def _expect(expected: Expected, shard: str, name: str, kind: str) -> None:
    key = f"{shard}/{name}"
    if kind == "escape":
        key = f"{shard}/escape"  # how the name is spelled is the reader's business
    if kind in REJECTED:
        expected.rejects[key, REJECTED[kind].value] += 1
    else:
        expected.pairs.add(key)


class MemoryWatch:
    """The most memory that any Python worker below this process holds, in MB."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.peak = max([self.peak, *map(_megabytes, psutil.Process().children(recursive=True))])


def _megabytes(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / 1e6 if "python" in process.name() else 0.0
    except psutil.NoSuchProcess:
        return 0.0


def broken_shards(session: SparkSession, clip: tuple[str, str], scratch: Path) -> Outcome:
    """Every sample is a pair or a reject with its reason; memory stays bounded; nothing is extracted."""
    expected = write_corpus(scratch / "broken" / "inner" / "shards")
    config = harness.write_config(scratch / "broken", scratch / "broken" / "inner" / "shards", clip)
    workspace = scratch / "broken" / "inner" / "workspace"
    with MemoryWatch() as memory:
        said = run_here(session, "ingest", config, workspace)
    if said:
        return Outcome("5 % broken", len(KINDS) + 3, expected.count, 0, 0, said)
    manifest = tables.read_manifest(str(workspace), "pairs")
    keys = [_short(key) for key in tables.read_parts(manifest, ["key"]).column("key").to_pylist()]
    rejects = tables.read_rejects(manifest)
    reasons = Counter(
        (_short(row["key"]), row["reason"]) for row in (rejects.to_pylist() if rejects is not None else [])
    )
    found = len(keys) + reasons.total()
    note = (
        f"{reasons.total()} rejects of {len({reason for _, reason in reasons})} reasons, {memory.peak:.0f} MB"
    )
    outcome = Outcome(
        "5 % broken", len(KINDS) + 3, expected.count, found, len(keys) - len(set(keys)), note=note
    )
    outcome.verdict = _verdict(expected, set(keys), reasons, memory.peak, scratch)
    return outcome


def _short(key: str) -> str:
    return f"{key.rpartition('/')[0]}/escape" if "escape" in key else key


def _verdict(
    expected: Expected, keys: set[str], reasons: Counter[tuple[str, str]], peak: float, scratch: Path
) -> str:
    if keys != expected.pairs:
        return f"pairs: {sorted(keys ^ expected.pairs)[:5]}"
    if reasons != expected.rejects:
        return f"rejects: {list((expected.rejects - reasons).items())[:3]} became {list((reasons - expected.rejects).items())[:3]}"
    if peak > MOST_MEGABYTES:
        return f"a task took {peak:.0f} MB"
    escaped = [str(path) for path in scratch.parent.rglob("escape-*")]
    return f"extracted: {escaped}" if escaped else "ok"
