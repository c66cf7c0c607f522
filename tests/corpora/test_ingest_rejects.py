"""Every reason to reject a sample, provoked; and every sample accounted for (`ingest` checks the sums)."""

from __future__ import annotations

import base64
import io
import json
import shutil
import struct
import tarfile
import time
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from configs.schema import CorpusConfig, IngestConfig
from corpora.captions import clean_caption
from corpora.decode_pool import Clock, DecodePool
from corpora.images import prepare_image
from corpora.inline_images import inline_image
from corpora.reasons import EXPLANATIONS, Reason
from corpora.samples import too_big
from corpora.shards import list_shards
from spark_jobs.ingest import ingest_unit
from storage import listing
from storage.units import Unit
from tests.corpora.ingest_inputs import (
    encode,
    ingest,
    ingest_samples,
    jpeg,
    members,
    picture,
    png_header,
    write_tar,
)

GOOD = jpeg()


def _noise(width=128, height=128, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def _many_scans() -> bytes:
    """A progressive JPEG whose last scan is repeated a thousand times: small, and slow to decode."""
    data = encode(picture(), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * 1000 + b"\xff\xd9"


BROKEN = {
    "nothing": (b"", "empty_image", ""),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "unreadable_image", "looks like HTML or XML"),
    "svg": (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "unreadable_image", "XML"),
    "random": (bytes(range(256)) * 20, "unreadable_image", "begins with"),
    "cut jpeg": (GOOD[: len(GOOD) // 2], "truncated_image", "truncated"),
    "cut large jpeg": (encode(_noise(1024, 1024))[:-40_000], "truncated_image", ""),
    "cut progressive": (encode(_noise(), progressive=True)[:5000], "truncated_image", ""),
    "cut to the header": (GOOD[:30], "truncated_image", ""),
    "cut png": (encode(_noise(), "PNG")[:9000], "truncated_image", ""),
    "cut webp": (encode(_noise(), "WEBP")[:2000], "truncated_image", ""),
    "cut gif": (encode(_noise(), "GIF")[:4000], "truncated_image", ""),
    "1x1": (encode(picture(1, 1), "GIF"), "too_few_pixels", "1 x 1"),
    "bomb": (png_header(60_000, 60_000), "too_many_pixels", "pixels"),
    "over the limit": (png_header(20_000, 4_000), "too_many_pixels", "20000 x 4000"),
    "within the limit but empty": (png_header(3_000, 3_000), "truncated_image", ""),
    "float": (encode(Image.fromarray(np.ones((64, 64), np.float32)), "TIFF"), "unsupported_mode", "mode F"),
    "lab": (encode(picture().convert("LAB"), "TIFF"), "unsupported_mode", "mode LAB"),
    "many scans": (_many_scans(), "unreadable_image", "scans"),
    "other formats": (encode(picture(), "PPM"), "unreadable_image", "begins with"),
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """All broken images in one tar, a good one between them."""
    samples = {}
    for number, (image, _, _) in enumerate(BROKEN.values()):
        samples[f"b{number:02d}"] = members(f"b{number:02d}", image, "a caption of some length")
        samples[f"g{number:02d}"] = members(f"g{number:02d}", GOOD, "a caption of some length")
    return ingest_samples(tmp_path_factory.mktemp("broken"), samples)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_a_reject_with_its_reason(broken, name):
    number = list(BROKEN).index(name)
    row = next(row for row in broken.rejects if row["sample"] == f"b{number:02d}")
    _, reason, detail = BROKEN[name]
    assert row["reason"] == reason
    assert detail in row["detail"]
    assert (row["key"], row["corpus"], row["shard"], row["stage"]) == (
        f"web/00000/b{number:02d}",
        "web",
        "00000",
        "ingest",
    )


def test_what_stands_beside_broken_images_is_unharmed(broken):
    assert [row["key"] for row in broken.pairs] == [f"web/00000/g{n:02d}" for n in range(len(BROKEN))]
    assert all(row["image"] == GOOD for row in broken.pairs)
    assert len(broken.rejects) == len(BROKEN)


def test_limits_are_configurable(tmp_path):
    samples = {
        "pixels": members("pixels", encode(_noise(200, 200)), "a caption"),
        "bytes": members("bytes", encode(_noise(150, 150), "PNG"), "a caption"),
        "long": members("long", GOOD, "x" * 300),
        "short": members("short", GOOD, "seven c"),
    }
    found = ingest_samples(
        tmp_path,
        samples,
        max_pixels=30_000,
        max_image_bytes=50_000,
        min_caption_chars=8,
        max_caption_chars=100,
    )
    assert found.reasons == {"pixels": "too_many_pixels", "bytes": "image_too_big", "short": "short_caption"}
    assert found.pairs[0]["caption"] == "x" * 100


def test_a_limit_above_pillows_own_is_obeyed(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    result = prepare_image(jpeg(96, 64), IngestConfig(max_pixels=10_000))
    assert (result.width, result.height) == (96, 64)


CAPTIONS = {
    "missing": (None, "missing_caption"),
    "empty": ("", "short_caption"),
    "blank": (" \n\t ", "short_caption"),
    "short": ("ab", "short_caption"),
    "latin1": ("ein Häuschen".encode("latin-1"), "caption_not_utf8"),
    "cut character": ("ein schönes".encode()[:8], "caption_not_utf8"),
    "utf16": ("a caption".encode("utf-16"), "caption_not_utf8"),
}


def test_captions(tmp_path):
    samples = {name: members(name, GOOD, caption) for name, (caption, _) in CAPTIONS.items()}
    samples["good"] = members("good", GOOD, "  two\nlines\tand\x00 a zero\u202e ")
    samples["huge"] = members("huge", GOOD, "é" * 500_000)  # 1 MB
    found = ingest_samples(tmp_path, samples)
    names = {name.replace(" ", "%20"): reason for name, (_, reason) in CAPTIONS.items()}
    assert found.reasons == names
    pairs = found.by_sample()
    assert pairs["good"]["caption"] == "two lines and a zero"
    assert pairs["huge"]["caption"] == "é" * 4096


def test_captions_in_json(tmp_path):
    def sample(name, text):
        return [(f"{name}.jpg", GOOD), (f"{name}.json", text)]

    samples = {
        "null": sample("null", b'{"caption": null}'),
        "list": sample("list", b'["caption"]'),
        "damaged": sample("damaged", b'{"caption": "a'),
        "surrogate": sample("surrogate", b'{"caption": "half \\ud83d a face"}'),
        "deep": sample("deep", b"[" * 100_000),
        "latin": sample("latin", '{"caption": "Häuschen"}'.encode("latin-1")),
        "good": sample("good", json.dumps({"caption": "ein Häuschen"}).encode()),
    }
    found = ingest_samples(tmp_path, samples)
    missing = dict.fromkeys(("null", "list", "damaged", "deep"), "missing_caption")
    assert found.reasons == {**missing, "surrogate": "caption_not_utf8", "latin": "caption_not_utf8"}
    assert found.by_sample()["good"]["caption"] == "ein Häuschen"


def test_the_cut_of_a_long_caption_never_splits_a_character():
    config = IngestConfig(max_caption_chars=10)
    for length in range(1, 200):
        for text in ("日" * length, "a" + "é" * length, "😀" * length):
            if length >= 3:
                assert clean_caption(text.encode(), config) == text[:10]


def test_duplicate_names_within_a_shard_and_across_shards(tmp_path):
    parts = [
        *members("0001", jpeg(seed=1), "the first one"),
        *members("0002", jpeg(seed=2), "another"),
        *members("0001", jpeg(seed=3), "the second one"),
    ]
    write_tar(tmp_path / "in/00000.tar", parts)
    write_tar(tmp_path / "in/00001.tar", members("0001", jpeg(seed=4), "of another shard"))
    found = ingest(CorpusConfig("web", "webdataset", str(tmp_path / "in")), tmp_path / "out")
    assert found.reasons == {"0001": "duplicate_key"}
    captions = {row["key"]: row["caption"] for row in found.pairs}
    assert captions == {
        "web/00000/0001": "the first one",
        "web/00000/0002": "another",
        "web/00001/0001": "of another shard",
    }


def _cut(tmp_path, keep, mode="w"):
    """A tar of five samples, cut in what ``keep(members)`` says; its Ingested."""
    path = tmp_path / ("in/0.tar.gz" if mode == "w:gz" else "in/0.tar")
    files = [m for n in range(5) for m in members(f"{n}", encode(_noise(seed=n)), "a caption")]
    write_tar(path, files, mode)
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        found = {member.name: member for member in tar}
    path.write_bytes(data[: keep(found, len(data))])
    return ingest(CorpusConfig("web", "webdataset", str(path)), tmp_path / "out")


CUTS = {
    "in an image": (lambda m, n: m["3.jpg"].offset_data + 1000, ["0", "1", "2"]),
    "in a caption": (lambda m, n: m["3.txt"].offset_data + 3, ["0", "1", "2"]),
    "in the header of a caption": (lambda m, n: m["3.txt"].offset + 100, ["0", "1", "2"]),
    "in the JSON, which is not needed": (lambda m, n: m["3.json"].offset_data + 1, ["0", "1", "2", "3"]),
    "between members": (lambda m, n: m["3.jpg"].offset, ["0", "1", "2"]),
    "before the end mark": (lambda m, n: m["4.json"].offset_data + 512, ["0", "1", "2", "3", "4"]),
}


@pytest.mark.parametrize("place", CUTS)
def test_a_cut_tar_keeps_what_came_before_and_says_so(tmp_path, place):
    keep, expected = CUTS[place]
    found = _cut(tmp_path, keep)
    assert sorted(found.by_sample()) == expected
    assert found.reasons == {"": "truncated_shard"}
    assert "after" in found.rejects[0]["detail"]


def test_a_cut_compressed_tar(tmp_path):
    found = _cut(tmp_path, lambda m, n: n // 2, "w:gz")
    assert 0 < len(found.pairs) < 5
    assert found.reasons == {"": "truncated_shard"}


def test_joined_tars_do_not_lose_the_second_one_silently(tmp_path):
    one = write_tar(tmp_path / "a/1.tar", members("1", GOOD, "a caption")).read_bytes()
    two = write_tar(tmp_path / "a/2.tar", members("2", GOOD, "a caption")).read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/0.tar").write_bytes(one + two)
    found = ingest(CorpusConfig("web", "webdataset", str(tmp_path / "in")), tmp_path / "out")
    assert list(found.by_sample()) == ["1"]
    assert found.reasons == {"": "truncated_shard"}
    assert "joined archives" in found.rejects[0]["detail"]


def test_damage_in_the_middle_of_a_tar(tmp_path):
    path = write_tar(tmp_path / "in/0.tar", [m for n in range(5) for m in members(f"{n}", GOOD, "a caption")])
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        place = next(member.offset for member in tar if member.name == "2.txt")
    data[place : place + 512] = bytes([7]) * 512
    path.write_bytes(data)
    found = ingest(CorpusConfig("web", "webdataset", str(path)), tmp_path / "out")
    assert list(found.by_sample()) == ["0", "1"]
    assert found.reasons == {"": "truncated_shard"}


@pytest.mark.parametrize("content", [b"", b"<html>no such bucket</html>" * 50, bytes(100)])
@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_what_is_no_shard_at_all(tmp_path, content, kind):
    path = tmp_path / f"0.{'tar' if kind == 'webdataset' else 'parquet'}"
    path.write_bytes(content)
    found = ingest(CorpusConfig("web", kind, str(path)), tmp_path / "out")
    assert found.pairs == []
    assert found.reasons == {"": "unreadable_shard"}


def test_a_shard_that_vanished_between_listing_and_reading(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "in/0.tar", members("1", GOOD, "a caption"))
    shard = list_shards(CorpusConfig("web", "webdataset", str(path)))[0]
    path.unlink()
    record = ingest_unit(Unit("web/0", 0, (shard, IngestConfig())), str(tmp_path / "out"), "recipe")
    assert (record.rows_in, record.rejects) == (1, {"unreadable_shard": 1})


def test_files_that_vanish_while_their_folder_is_read(tmp_path, monkeypatch):
    folder = tmp_path / "in/00000"
    folder.mkdir(parents=True)
    for name in "abcd":
        for member, data in members(name, GOOD, "a caption"):
            (folder / member).write_bytes(data)
    corpus = CorpusConfig("web", "files", str(tmp_path / "in"))

    def listed_then_gone(*arguments, **options):
        found = listing.list_entries(*arguments, **options)
        for gone in ("a.jpg", "c.txt"):
            (folder / gone).unlink(missing_ok=True)
        return found

    monkeypatch.setattr("corpora.readers.image_folder.list_entries", listed_then_gone)
    found = ingest(corpus, tmp_path / "out")
    assert list(found.by_sample()) == ["b", "d"]
    assert found.reasons == {"a": "missing_image", "c": "missing_caption"}
    shard = list_shards(corpus)[0]
    shutil.rmtree(folder)
    record = ingest_unit(Unit("web/0", 0, (shard, IngestConfig())), str(tmp_path / "out"), "recipe")
    assert (record.rows_in, record.rejects) == (1, {"unreadable_shard": 1})


def test_an_empty_shard_says_so(tmp_path):
    path = write_tar(tmp_path / "0.tar", [])
    found = ingest(CorpusConfig("web", "webdataset", str(path)), tmp_path / "out")
    assert [(row["reason"], row["detail"]) for row in found.rejects] == [("no_sample", "the shard is empty")]


def test_a_damaged_row_group_is_rejected_row_by_row(tmp_path):
    rows = {
        "key": [str(n) for n in range(9)],
        "jpg": [jpeg(seed=n) for n in range(9)],
        "caption": ["a caption"] * 9,
    }
    path = tmp_path / "0.parquet"
    pq.write_table(pa.table(rows), path, row_group_size=3, compression="snappy", use_dictionary=False)
    group = pq.ParquetFile(path).metadata.row_group(1)
    start = min(group.column(c).data_page_offset for c in range(3))
    data = bytearray(path.read_bytes())
    data[start : start + 60] = b"\xff" * 60
    path.write_bytes(data)
    found = ingest(CorpusConfig("web", "parquet", str(path)), tmp_path / "out")
    assert list(found.by_sample()) == ["0", "1", "2", "6", "7", "8"]
    assert len(found.rejects) == 3
    assert set(found.reasons.values()) == {"unreadable_shard"}


def test_parquet_of_other_columns(tmp_path):
    pq.write_table(pa.table({"url": ["http://a"], "alt": ["b"]}), tmp_path / "0.parquet")
    found = ingest(CorpusConfig("web", "parquet", str(tmp_path)), tmp_path / "out")
    assert found.reasons == {"": "unreadable_shard"}
    assert "set image_column and caption_column" in found.rejects[0]["detail"]


def test_rows_of_tables(tmp_path):
    (tmp_path / "images/deep").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "images" / name).write_bytes(GOOD)
    (tmp_path / "secret.jpg").write_bytes(GOOD)
    rows = {
        "a.jpg,a good caption": None,
        "deep/../b.jpg,another good one": None,
        f"{tmp_path}/images/a.jpg,an absolute path inside": None,
        "../secret.jpg,a way out": "path_outside",
        f"{tmp_path}/secret.jpg,an absolute way out": "path_outside",
        "file:///etc/passwd,a scheme": "path_outside",
        "s3a://other/bucket.jpg,another scheme": "path_outside",
        "a\x00.jpg,a zero": "path_outside",
        "gone.jpg,no such file": "missing_image",
        "deep,a folder": "missing_image",
        "a.jpg": "malformed_row",
        ",no path": "malformed_row",
        'a.jpg,"an open quote': "malformed_row",
        "a.jpg,": "short_caption",
    }
    path = tmp_path / "list.csv"
    path.write_bytes(
        b"image,caption\n" + b"".join(row.encode() + b"\n" for row in rows) + b"a.jpg,H\xe4uschen am See\n"
    )
    corpus = CorpusConfig("web", "table", str(path), image_root=str(tmp_path / "images"))
    found = ingest(corpus, tmp_path / "out")
    expected = sorted([reason for reason in rows.values() if reason] + ["caption_not_utf8"])
    assert sorted(row["reason"] for row in found.rejects) == expected
    assert [row["caption"] for row in found.pairs] == [
        "a good caption",
        "another good one",
        "an absolute path inside",
    ]


def test_an_endless_line(tmp_path):
    (tmp_path / "a.jpg").write_bytes(GOOD)
    path = tmp_path / "list.csv"
    path.write_bytes(b"image,caption\na.jpg," + b"x" * (9 << 20) + b"\na.jpg,a caption after it\n")
    found = ingest(CorpusConfig("web", "table", str(path), image_root=str(tmp_path)), tmp_path / "out")
    assert [row["reason"] for row in found.rejects] == ["malformed_row"]
    assert found.pairs[0]["caption"] == "a caption after it"
    assert int(found.pairs[0]["key"].rpartition("/")[2]) == 14 + 6 + (9 << 20) + 1


def test_zips(tmp_path):
    path = tmp_path / "zips/abc.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.jpg", GOOD)
        archive.writestr("damaged.jpg", GOOD)
        archive.writestr("bzip.jpg", GOOD, compress_type=zipfile.ZIP_BZIP2)
        archive.writestr("lied.jpg", bytes(1000), compress_type=zipfile.ZIP_DEFLATED)
        archive.writestr("big.jpg", bytes(300_000), compress_type=zipfile.ZIP_DEFLATED)
        archive.writestr("notes.txt", b"no image")
    data = path.read_bytes()
    data = data.replace(GOOD, GOOD[:600] + b"\xee" * 50 + GOOD[650:], 2)  # both stored copies ...
    data = data.replace(GOOD[:600] + b"\xee" * 50 + GOOD[650:], GOOD, 1)  # ... the first one mended
    path.write_bytes(data)
    names = ("good", "damaged", "bzip", "lied", "big")
    (tmp_path / "t.tsv").write_text("file\tcaption\n" + "".join(f"{n}.jpg\tcaption of {n}\n" for n in names))
    (tmp_path / "zips/cut.zip").write_bytes(data[:500])
    corpus = CorpusConfig("y", "yfcc14m", str(tmp_path / "t.tsv"), image_root=str(tmp_path / "zips"))
    found = ingest(corpus, tmp_path / "out", max_image_bytes=200_000)
    assert list(found.by_sample()) == ["good"]
    assert found.reasons == {
        "damaged": "unreadable_image",
        "bzip": "unreadable_image",
        "lied": "unreadable_image",
        "big": "image_too_big",
        "": "unreadable_shard",
    }
    strays = next(row for row in found.rejects if row["reason"] == "no_sample")
    assert (strays["shard"], strays["detail"]) == ("abc", "1 files: notes.txt")


def test_the_time_limit_ends_slow_images_and_slow_decoders(tmp_path):
    samples = {
        "a": members("a", encode(_noise(3000, 3000), "PNG"), "a caption"),
        "b": members("b", GOOD, "a caption"),
    }
    found = ingest_samples(tmp_path, samples, image_seconds=0.05, short_side=16)
    assert found.reasons.get("a") == "image_timeout"


def test_a_thread_that_hangs_is_replaced_and_the_order_kept():
    def work(item: int, clock: Clock) -> int:
        if item in (1, 2):  # does not look at the clock
            time.sleep(6.0)
        return 10 * item

    begun = time.monotonic()
    with DecodePool(work, threads=1, seconds=0.5) as pool:
        jobs = [pool.submit(item) for item in range(6)]
        results = []
        for job in jobs:
            try:
                results.append(pool.wait(job))
            except TimeoutError:
                results.append("late")
    assert results == [0, "late", "late", 30, 40, 50]
    assert time.monotonic() - begun < 5


def test_a_jpeg_with_thirty_megabytes_of_exif_is_quick_and_small():
    segment = b"\xff\xe1" + struct.pack(">H", 65_000) + b"Exif\0\0" + bytes(64_992)
    data = GOOD[:2] + segment * 480 + GOOD[2:]
    assert len(data) > 30_000_000
    begun = time.process_time()
    result = prepare_image(data, IngestConfig())
    assert time.process_time() - begun < 1.0
    assert result.jpeg == GOOD


def test_metadata_never_reaches_the_stored_image():
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        data = encode(picture(), kind, exif=exif)
        result = prepare_image(data, IngestConfig())
        assert b"secret" in data
        assert b"secret" not in result.jpeg
        assert not Image.open(io.BytesIO(result.jpeg)).getexif()


def test_random_damage_never_raises_and_never_hangs():
    source = np.random.default_rng(5)
    originals = [GOOD, encode(picture(), "PNG"), encode(picture(), "WEBP"), encode(picture(), "GIF"),
                 encode(picture(), "TIFF"), encode(picture(), "BMP"), encode(picture(), progressive=True)]  # fmt: skip
    for _ in range(300):
        data = bytearray(originals[source.integers(len(originals))])
        for place in source.integers(0, len(data), source.integers(1, 8)):
            data[place] = source.integers(256)
        result = prepare_image(bytes(data), IngestConfig(image_seconds=5))
        assert hasattr(result, "jpeg") or result.reason in Reason


def test_member_names_never_become_paths(tmp_path, monkeypatch):
    names = ["../../evil", "/etc/evil", "a/../../evil", "..", "C:\\evil", "x" * 300, "sym\nlink", "q?*<>|\"'"]
    files = [m for n in names for m in members(n, GOOD, "a caption")]
    path = write_tar(tmp_path / "in/0.tar", files)
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = set(tmp_path.rglob("*"))
    found = ingest(CorpusConfig("web", "webdataset", str(path)), tmp_path / "out")
    written = {p.relative_to(tmp_path) for p in tmp_path.rglob("*")} - {
        p.relative_to(tmp_path) for p in before
    }
    assert all(p.parts[0] == "out" for p in written)
    assert not any("evil" in str(p) for p in written)
    assert not (tmp_path.parent / "evil.jpg").exists()
    keys = [row["key"] for row in found.pairs]
    assert all(key.count("/") == 2 and key.isprintable() and len(key) < 200 for key in keys)
    assert len(keys) == len(names) - 1
    assert found.reasons == {"link": "missing_image", "": "no_sample"}  # "..", whose files are hidden


def test_every_reason_is_explained():
    assert set(EXPLANATIONS) == set(Reason)
    assert all(text and "\n" not in text for text in EXPLANATIONS.values())


def _parquet(folder, columns, names=None, **options):
    pq.write_table(pa.Table.from_arrays(list(columns.values()), names or list(columns)), folder / "0.parquet")
    return ingest(CorpusConfig("web", "parquet", str(folder)), folder / "out", **options)


def test_doubled_columns_end_their_own_shard_alone(tmp_path):
    texts = pa.array(["a caption"])
    for number, names in enumerate((["image", "caption", "caption"], ["image", "caption", "x", "x"])):
        arrays = [pa.array([GOOD]), *[texts] * (len(names) - 1)]
        pq.write_table(pa.Table.from_arrays(arrays, names), tmp_path / f"{number}.parquet")
    found = ingest(CorpusConfig("web", "parquet", str(tmp_path)), tmp_path / "out")
    assert [row["key"] for row in found.pairs] == ["web/1/000000000"]
    (row,) = found.rejects
    assert (row["reason"], row["shard"]) == ("unreadable_shard", "0")
    assert row["detail"].startswith("has 2 columns called 'caption'; rename, or set")


NO_BYTES = {
    "a path": (pa.array(["a/1.jpg"]), "not the image's bytes but a string: a/1.jpg (paths: format table)"),
    "only a path": (pa.array([{"bytes": None, "path": "/d/0.jpg"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())])), "no bytes, only path /d/0.jpg"),
    "null": (pa.array([None], pa.binary()), "the image is null"),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_BYTES)
def test_what_stands_for_bytes_is_named(tmp_path, case):
    images, detail = NO_BYTES[case]
    found = _parquet(tmp_path, {"image": images, "caption": pa.array(["a caption"])})
    assert [(row["reason"], row["detail"]) for row in found.rejects] == [("missing_image", detail)]


BASE64 = base64.b64encode(GOOD).decode()
NO_IMAGES = {
    "too big": (BASE64, "image_too_big", f"{len(GOOD)} bytes"),
    "far too big": ("data:image/png;base64," + 9 * BASE64, "image_too_big", ""),
    "cut": (BASE64[:401], "truncated_image", "base64 of 401 characters"),
    "damaged": (BASE64[:300] + "****" + BASE64[304:], "unreadable_image", "not base64: "),
    "not in base64": ("data:image/svg+xml,%3Csvg", "unreadable_image", "a data: URL that is not base64: data:image/svg+xml"),
    "nothing": ("data:image/png;base64,", "empty_image", ""),
    "a page": ("data:text/html;base64," + base64.b64encode(b"<html>" + bytes(90)).decode(), "unreadable_image", "looks like HTML"),
    "a word": ("abcdefghijklmnop", "missing_image", "not the image's bytes but a string"),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_IMAGES)
def test_a_text_that_is_no_image_is_named(tmp_path, case):
    text, reason, detail = NO_IMAGES[case]
    most = len(GOOD) - (case == "too big")
    columns = {"image": pa.array([text]), "caption": pa.array(["a caption"])}
    found = _parquet(tmp_path, columns, max_image_bytes=most)
    assert [row["reason"] for row in found.rejects] == [reason]
    assert found.rejects[0]["detail"].startswith(detail)


def test_the_size_of_an_image_in_a_text_is_known_before_it_is_decoded():
    assert inline_image(BASE64, IngestConfig(max_image_bytes=len(GOOD))) == GOOD
    assert inline_image(BASE64, IngestConfig(max_image_bytes=len(GOOD) - 1)) == too_big(len(GOOD))
    assert inline_image("data:;base64," + 100 * "*", IngestConfig(max_image_bytes=9)) == too_big(75)


def test_a_column_of_bytes_goes_before_one_of_names(tmp_path):
    columns = {"image": pa.array(["u1"]), "jpg": pa.array([GOOD]), "caption": pa.array(["a caption"])}
    found = _parquet(tmp_path, columns)
    assert [row["image"] for row in found.pairs] == [GOOD]
