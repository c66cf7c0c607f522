"""Every input format ends in the same pairs, by the task that Spark runs and without Spark."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import re
import urllib.parse
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.schema import CorpusConfig, IngestConfig
from corpora.captions import clean_caption, unquote
from corpora.shards import list_shards
from tests.corpora.ingest_inputs import encode, ingest, jpeg, members, picture, write_tar

CAPTIONS = [
    "a red car by the sea",
    'two dogs, one "good" boy',
    "Ein Haus mit Gärten – schön",
    "日本の古い橋です",
]
IMAGES = [jpeg(90 + n, 64, n) for n in range(4)]
SIZES = [(90 + n, 64) for n in range(4)]


def _assert_all(found):
    assert [row["caption"] for row in found.pairs] == CAPTIONS
    assert [(row["width"], row["height"]) for row in found.pairs] == SIZES
    assert [row["image"] for row in found.pairs] == IMAGES  # small JPEGs are kept as they are
    assert found.rejects == []


def _tar_members(start=0):
    pairs = zip(IMAGES, CAPTIONS, strict=True)
    return [part for n, (i, c) in enumerate(pairs, start) for part in members(f"{n:09d}", i, c)]


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tgz", "w:gz")])
def test_webdataset(tmp_path, suffix, mode):
    write_tar(tmp_path / f"in/00007.{suffix}", _tar_members(), mode)
    found = ingest(CorpusConfig("cc", "webdataset", str(tmp_path / "in")), tmp_path / "out")
    _assert_all(found)
    assert [row["key"] for row in found.pairs] == [f"cc/00007/{n:09d}" for n in range(4)]
    assert {row["corpus"] for row in found.pairs} == {"cc"}


def test_captions_in_the_json_and_images_of_other_kinds(tmp_path):
    files = [
        ("a/0.json", json.dumps({"caption": CAPTIONS[0]}).encode()),
        ("a/0.PNG", encode(picture(90), "PNG")),
        ("b.webp", encode(picture(90), "WEBP")),
        ("b.caption", CAPTIONS[1].encode()),
        ("c.cls", b"7"),  # what other loaders keep beside
        ("c.text", CAPTIONS[2].encode()),
        ("c.jpeg", IMAGES[0]),
    ]
    write_tar(tmp_path / "x.tar", files)
    found = ingest(CorpusConfig("cc", "webdataset", str(tmp_path / "x.tar")), tmp_path / "out")
    assert [row["caption"] for row in found.pairs] == CAPTIONS[:3]
    assert [row["key"] for row in found.pairs] == ["cc/x/a%2F0", "cc/x/b", "cc/x/c"]


@pytest.mark.parametrize("kind", ["binary", "large_binary", "struct"])
def test_parquet(tmp_path, kind):
    images = {
        "binary": pa.array(IMAGES, pa.binary()),
        "large_binary": pa.array(IMAGES, pa.large_binary()),
        "struct": pa.array([{"bytes": data, "path": "x"} for data in IMAGES]),
    }[kind]
    columns = {"key": [f"{n:09d}" for n in range(4)], "jpg": images, "caption": CAPTIONS}
    pq.write_table(pa.table(columns), tmp_path / "00003.parquet", row_group_size=3)
    found = ingest(CorpusConfig("cc", "parquet", str(tmp_path / "*.parquet")), tmp_path / "out")
    _assert_all(found)
    assert [row["key"] for row in found.pairs] == [f"cc/00003/{n:09d}" for n in range(4)]


def _as_text(kind):
    """The images as texts of a column."""
    encoded = [base64.b64encode(data).decode() for data in IMAGES]
    return {
        "base64": encoded,
        "data": [f"data:image/jpeg;base64,{text}" for text in encoded],
        "web-safe": [text.replace("+", "-").replace("/", "_").rstrip("=") for text in encoded],
        "wrapped": ["\n".join(re.findall(".{1,76}", text)) for text in encoded],
        "escaped": [f"DATA:;charset=x;BASE64,{urllib.parse.quote(text, safe='')}" for text in encoded],
    }[kind]


@pytest.mark.parametrize("kind", ["base64", "data", "web-safe", "wrapped", "escaped"])
def test_parquet_with_images_as_text(tmp_path, kind):
    assert any("+" in base64.b64encode(data).decode() for data in IMAGES)
    pq.write_table(pa.table({"image": _as_text(kind), "caption": CAPTIONS}), tmp_path / "0.parquet")
    _assert_all(ingest(CorpusConfig("cc", "parquet", str(tmp_path / "*.parquet")), tmp_path / "out"))


@pytest.mark.parametrize("kind", ["base64", "data", "web-safe", "escaped"])
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_table_with_images_as_text(tmp_path, kind, delimiter):
    path, last = tmp_path / "list.csv", _write_images(tmp_path / "images")[3]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(["image", "caption"])
        writer.writerows(
            zip([*_as_text(kind)[:3], last], CAPTIONS, strict=True)
        )  # paths may stand among them
    corpus = CorpusConfig("cc", "table", str(path), image_root=str(tmp_path / "images"))
    _assert_all(ingest(corpus, tmp_path / "out"))


def test_parquet_rows_without_keys_are_named_by_their_number(tmp_path):
    table = pa.table({"photo": IMAGES, "text": CAPTIONS})
    pq.write_table(table, tmp_path / "part.parquet", row_group_size=2)
    corpus = CorpusConfig(
        "cc", "parquet", str(tmp_path / "part.parquet"), image_column="photo", caption_column="text"
    )
    found = ingest(corpus, tmp_path / "out")
    _assert_all(found)
    assert [row["key"].rpartition("/")[2] for row in found.pairs] == [f"{n:09d}" for n in range(4)]


def test_parquet_failures_of_the_download_are_rejects_with_what_img2dataset_said(tmp_path):
    table = pa.table(
        {
            "key": ["0", "1"],
            "jpg": pa.array([IMAGES[0], None], pa.binary()),
            "caption": CAPTIONS[:2],
            "status": ["success", "failed_to_download"],
            "error_message": [None, "HTTP Error 404"],
        }
    )
    pq.write_table(table, tmp_path / "00000.parquet")
    found = ingest(CorpusConfig("cc", "parquet", str(tmp_path)), tmp_path / "out")
    assert found.reasons == {"1": "missing_image"}
    assert found.rejects[0]["detail"] == "failed_to_download, HTTP Error 404"
    assert len(found.pairs) == 1


def _write_files(folder):
    folder.mkdir(parents=True)
    for name, data in _tar_members():
        (folder / name).write_bytes(data)


def test_files_one_shard_a_folder(tmp_path):
    _write_files(tmp_path / "in" / "00002")
    (tmp_path / "in" / "00002.parquet").write_bytes(b"metadata that img2dataset writes beside")
    (tmp_path / "in" / "00002_stats.json").write_text("{}")
    (tmp_path / "in" / "_tmp").mkdir()
    found = ingest(CorpusConfig("cc", "files", str(tmp_path / "in")), tmp_path / "out")
    _assert_all(found)
    assert [row["key"] for row in found.pairs] == [f"cc/00002/{n:09d}" for n in range(4)]


def test_files_right_in_the_root_are_cut_into_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("corpora.shards.FILES_A_SHARD", 3)
    _write_files(tmp_path / "in")
    (tmp_path / "in" / "stats.json").write_text("{}")  # no sample
    corpus = CorpusConfig("cc", "files", str(tmp_path / "in"))
    assert [shard.name for shard in list_shards(corpus)] == ["files-00000000", "files-00000003"]
    _assert_all(ingest(corpus, tmp_path / "out"))


def _write_images(folder):
    (folder / "deep").mkdir(parents=True)
    paths = ["a.jpg", "deep/b.jpg", "deep/c d.jpg", "e.jpg"]
    for path, data in zip(paths, IMAGES, strict=True):
        (folder / path).write_bytes(data)
    return paths


@pytest.mark.parametrize("suffix", ["csv", "tsv", "csv.gz"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "bom"])
def test_table(tmp_path, suffix, mark):
    paths = _write_images(tmp_path / "images")
    name = tmp_path / f"list.{suffix}"
    opener = gzip.open if suffix.endswith("gz") else open
    with opener(name, "wt", encoding="utf-8", newline="") as stream:
        stream.write(mark)
        writer = csv.writer(stream, delimiter="\t" if suffix == "tsv" else ",")
        writer.writerow(["id", "caption", "image"])
        for number, (path, caption) in enumerate(zip(paths, CAPTIONS, strict=True)):
            writer.writerow([number, caption, path])
        stream.write("\r\n")  # an empty line is no sample
    corpus = CorpusConfig("cc", "table", str(name), image_root=str(tmp_path / "images"))
    _assert_all(ingest(corpus, tmp_path / "out"))


@pytest.mark.parametrize("range_bytes", [7, 40, 64, 1000])
def test_table_ranges_give_every_line_once_wherever_they_are_cut(tmp_path, monkeypatch, range_bytes):
    paths = _write_images(tmp_path / "images")
    lines = [f"{path}\t{caption}\n" for path, caption in zip(paths, CAPTIONS, strict=True)]
    (tmp_path / "list.tsv").write_text("".join(lines) * 3, encoding="utf-8")  # without a header
    monkeypatch.setattr("corpora.shards.RANGE_BYTES", range_bytes)
    corpus = CorpusConfig("cc", "table", str(tmp_path / "list.tsv"), image_root=str(tmp_path / "images"))
    size = (tmp_path / "list.tsv").stat().st_size
    assert len(list_shards(corpus)) == -(-size // range_bytes)
    found = ingest(corpus, tmp_path / "out")
    assert [row["caption"] for row in found.pairs] == CAPTIONS * 3
    positions = [int(row["key"].rpartition("/")[2]) for row in found.pairs]
    encoded = [len(line.encode()) for line in lines] * 3
    assert positions == [sum(encoded[:n]) for n in range(12)]


def test_quotes_in_tsv_are_ordinary_characters(tmp_path):
    paths = _write_images(tmp_path / "images")
    (tmp_path / "list.tsv").write_text(
        f'{paths[0]}\t"hello" she said\n{paths[1]}\ta 5" pipe\n', encoding="utf-8"
    )
    corpus = CorpusConfig("cc", "table", str(tmp_path / "list.tsv"), image_root=str(tmp_path / "images"))
    found = ingest(corpus, tmp_path / "out")
    assert [row["caption"] for row in found.pairs] == ['"hello" she said', 'a 5" pipe']


def _zip(path, images, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in images.items():
            archive.writestr(name, data)


def test_yfcc14m_as_groupvit_prepares_it(tmp_path):
    names = [f"abc/{n}{n}{n}/abc{n}{n}{n}ffff.jpg" for n in range(4)]
    _zip(tmp_path / "zips/abc.zip", {f"data/images/{n}": d for n, d in zip(names, IMAGES, strict=True)})
    rows = [f"{name}\t{caption}" for name, caption in zip(names, CAPTIONS, strict=True)]
    others = ["dea/dea/deaffff.jpg\tin another zip"]
    (tmp_path / "yfcc14m_dataset.tsv").write_text(
        "\n".join(["file\tcaption", *others, *reversed(rows)]), encoding="utf-8"
    )
    corpus = CorpusConfig(
        "yfcc", "yfcc14m", str(tmp_path / "yfcc14m_dataset.tsv"), image_root=str(tmp_path / "zips")
    )
    found = ingest(corpus, tmp_path / "out")
    _assert_all(found)
    assert [row["key"] for row in found.pairs] == [f"yfcc/abc/abc{n}{n}{n}ffff" for n in range(4)]


def test_yfcc14m_raw_titles_and_descriptions_are_unquoted(tmp_path):
    _zip(
        tmp_path / "zips/0a1.zip",
        {"0a1/0a1b.jpg": IMAGES[0], "0a1/0a1c.jpg": IMAGES[1], "0a1/0a1d.jpg": IMAGES[2]},
        compression=zipfile.ZIP_DEFLATED,
    )
    (tmp_path / "yfcc.tsv").write_text(
        "photo_hash\ttitle\tdescription\n"
        "0a1b\tCaf%C3%A9+%26amp%3B+bar\t%3Ca+href%3D%22http%3A%2F%2Fx.y%22%3EParis%3C%2Fa%3E%0Aby+night+%232\n"
        "0a1c\tC%2B%2B+code\t\n",
        encoding="utf-8",
    )
    corpus = CorpusConfig(
        "yfcc", "yfcc14m", str(tmp_path / "yfcc.tsv"), image_root=str(tmp_path / "zips/*.zip")
    )
    found = ingest(corpus, tmp_path / "out")
    assert [row["caption"] for row in found.pairs] == ["Café & bar Paris by night #2", "C++ code"]
    assert found.reasons == {"0a1d": "missing_caption"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a%20dog%20%26amp%3B%20cat", "a dog & cat"),
        ("one+two%2Bthree", "one two+three"),
        ("c++ &amp; c# at 100% speed", "c++ & c# at 100% speed"),
        ("50%de descuento", "50%de descuento"),
        ("&lt;b&gt;bold&lt;/b&gt; 1 < 2", "bold 1 < 2"),
        ("I <3 you", "I <3 you"),
        ("&#9731; &eacute;t&eacute;", "☃ été"),
    ],
)
def test_unquoted_captions(text, expected):
    assert clean_caption(unquote(text), IngestConfig()) == expected


def test_braces_and_globs_name_shards(tmp_path):
    for shard in range(12):
        write_tar(tmp_path / f"s{shard // 6}/{shard:05d}.tar", _tar_members(10 * shard)[:3])
    (tmp_path / "s0/.hidden.tar").write_bytes(b"")

    def names(pattern):
        return [
            shard.name for shard in list_shards(CorpusConfig("cc", "webdataset", str(tmp_path / pattern)))
        ]

    assert names("s0/{00002..00004}.tar") == ["00002", "00003", "00004"]
    assert names("s0/{00000..00005..5}.tar") == ["00000", "00005"]
    assert names("s0/0000[1-3].tar") == ["00001", "00002", "00003"]
    assert names("s0/*.tar") == [f"{n:05d}" for n in range(6)]
    assert names("**/*1.tar") == ["s0/00001", "s1/00011"]
    assert names("s{0,1}/*0.tar") == ["s0/00000", "s1/00010"]
    assert names("s0") == [f"{n:05d}" for n in range(6)]


WRONG_PATHS = {
    "s0/{00000..00002}.tar": r"s0/00002.tar: no such file \(from .*00000..00002",
    "s0/*.tgz": r"\*.tgz: no file matches",
    "s0/{a..b}.tar": r"\{a..b\} is neither a range like",
    "s0/{0..2000000}.tar": "more than 1,000,000 addresses",
    "nowhere": "nowhere: no such file",
}


@pytest.mark.parametrize(("pattern", "message"), WRONG_PATHS.items(), ids=WRONG_PATHS)
def test_patterns_that_match_nothing_say_so(tmp_path, pattern, message):
    for shard in range(2):
        write_tar(tmp_path / f"s0/{shard:05d}.tar", [])
    with pytest.raises(UserError, match=message):
        list_shards(CorpusConfig("cc", "webdataset", str(tmp_path / pattern)))


def test_shards_of_the_same_name_in_two_folders_keep_apart(tmp_path):
    for folder in ("x", "y"):
        write_tar(tmp_path / folder / "00000.tar", _tar_members())
    found = ingest(CorpusConfig("cc", "webdataset", str(tmp_path / "*/00000.tar")), tmp_path / "out")
    assert len(found.pairs) == 8
    assert {row["key"].rpartition("/")[0] for row in found.pairs} == {"cc/x/00000", "cc/y/00000"}


def test_tables_without_the_columns_or_the_folder_are_refused(tmp_path):
    (tmp_path / "list.csv").write_text("url,alt\nhttp://x,a cat\n")
    with pytest.raises(UserError, match=r"needs columns 'image' and 'caption', its first line has url, alt"):
        list_shards(CorpusConfig("cc", "table", str(tmp_path / "list.csv"), image_root=str(tmp_path)))
    with pytest.raises(UserError, match="image_root is missing, the folder that the image paths start from"):
        list_shards(CorpusConfig("cc", "table", str(tmp_path / "list.csv")))
    with pytest.raises(UserError, match="gone: no such file"):
        list_shards(
            CorpusConfig("cc", "table", str(tmp_path / "list.csv"), image_root=str(tmp_path / "gone"))
        )


def test_a_shard_is_cut_into_parts_at_the_same_rows_whatever_the_threads(tmp_path):
    images = [jpeg(96, 64, n) for n in range(23)]
    write_tar(
        tmp_path / "in/0.tar", [m for n, i in enumerate(images) for m in members(f"{n:03d}", i, "a caption")]
    )
    cuts = []
    for threads in (1, 3):
        corpus = CorpusConfig("cc", "webdataset", str(tmp_path / "in"))
        found = ingest(corpus, tmp_path / f"out{threads}", threads=threads, rows_per_part=5)
        cuts.append([(part.name, part.rows) for record in found.records for part in record.parts])
        assert [row["key"].rpartition("/")[2] for row in found.pairs] == [f"{n:03d}" for n in range(23)]
    assert cuts[0] == cuts[1] == [(f"cc/0-{n:05d}", rows) for n, rows in enumerate([5, 5, 5, 5, 3])]


@pytest.mark.parametrize(
    ("pattern", "first", "later"),
    [
        ("*/*.tar", ["a/0"], ["a/0", "b/0"]),
        ("{a,b}/0.tar", None, ["a/0", "b/0"]),
        ("a/*.tar", ["0"], ["0"]),
        ("a/{0..0}.tar", ["0"], ["0"]),
        ("a", ["0"], ["0"]),
    ],
)
def test_adding_a_folder_renames_no_shard(tmp_path, pattern, first, later):
    def names():
        return [
            shard.name for shard in list_shards(CorpusConfig("cc", "webdataset", str(tmp_path / pattern)))
        ]

    write_tar(tmp_path / "a/0.tar", members("0", jpeg(), "a caption"))
    if first is not None:
        assert names() == first
    write_tar(tmp_path / "b/0.tar", members("0", jpeg(), "a caption"))
    assert names() == later
