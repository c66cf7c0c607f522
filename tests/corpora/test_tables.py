"""Tables as people have them: no caption is cut, whatever their delimiters, line ends and marks are."""

from __future__ import annotations

import zipfile

import pytest

from configs.errors import UserError
from configs.schema import CorpusConfig
from corpora.shards import list_shards
from tests.corpora.ingest_inputs import ingest, jpeg


def _ingest(folder, name, data, **options):
    for n in range(4):
        (folder / f"{n}.jpg").write_bytes(jpeg(seed=n))
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    corpus = CorpusConfig("own", "table", str(folder / name), image_root=str(folder), **options)
    return ingest(corpus, folder / "out")


COLUMNS = {"image_column": "filepath", "caption_column": "title"}
WHOLE = {
    "tabs in a last caption": ("t.tsv", "image\tcaption\n0.jpg\ta dog\ton the grass\n1.jpg\ta red car\n", {}, ["a dog on the grass", "a red car"]),
    "commas in a last caption": ("t.csv", 'image,caption\n0.jpg,a dog, a cat, and a bird\n1.jpg,"a red, fast car"\n', {}, ["a dog, a cat, and a bird", "a red, fast car"]),
    "CR ends lines": ("t.csv", "image,caption\r0.jpg,a dog\r1.jpg,a red car\r", {}, ["a dog", "a red car"]),
    "CRLF, a mark": ("t.tsv", "\ufeffimage\tcaption\r\n0.jpg\ta dog\r\n", {}, ["a dog"]),
    "a CR inside": ("t.tsv", "image\tcaption\n0.jpg\ta dog\ron grass\n", {}, ["a dog on grass"]),
    "a .csv of tabs": ("t.csv", "filepath\ttitle\n0.jpg\ta dog\n1.jpg\ta red car\n", COLUMNS, ["a dog", "a red car"]),
    "a .tsv of commas": ("t.tsv", "filepath,title\n0.jpg,a dog\n", COLUMNS, ["a dog"]),
    "no header, tabs in the first caption": ("t.tsv", "0.jpg\ta dog\ton the grass\n1.jpg\ta car\n2.jpg\ta cat\n", {}, ["a dog on the grass", "a car", "a cat"]),
    "no header, a .csv of tabs": ("t.csv", "0.jpg\ta dog, a cat\n", {}, ["a dog, a cat"]),
    "further columns that a row leaves out": ("t.csv", "image,caption,url\n0.jpg,a dog,x\n1.jpg,a car\n", {}, ["a dog", "a car"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WHOLE)
def test_captions_come_whole(tmp_path, case):
    name, data, options, captions = WHOLE[case]
    found = _ingest(tmp_path, name, data, **options)
    assert [row["caption"] for row in found.pairs] == captions
    assert found.rejects == []


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_surplus_fields_before_another_column_are_malformed(tmp_path, suffix, delimiter):
    rows = ["caption,image", "a dog, a cat,0.jpg", "a car,1.jpg"]
    found = _ingest(tmp_path, f"t.{suffix}", "\n".join(rows).replace(",", delimiter))
    assert [row["caption"] for row in found.pairs] == ["a car"]
    assert [(row["reason"], row["detail"]) for row in found.rejects] == [("malformed_row", "3 fields of 2")]


@pytest.mark.parametrize("columns", ["caption", "title\tdescription"])
def test_surplus_fields_of_yfcc(tmp_path, columns):
    with zipfile.ZipFile(tmp_path / "0.zip", "w") as archive:
        for n in range(2):
            archive.writestr(f"a{n}.jpg", jpeg())
    wide = "\t" in columns
    rows = [
        f"file\t{columns}\tx"[: None if wide else -2],
        "a0\tone\ttwo\tthree\tfour",
        "a1.jpg\ta dog\ton grass",
    ]
    (tmp_path / "t.tsv").write_text("\n".join(rows) + "\n")
    corpus = CorpusConfig("y", "yfcc14m", str(tmp_path / "t.tsv"), image_root=str(tmp_path))
    found = ingest(corpus, tmp_path / "out")
    whole = {"a1": "a dog on grass"} if wide else {"a0": "one two three four", "a1": "a dog on grass"}
    assert {name: row["caption"] for name, row in found.by_sample().items()} == whole
    assert found.reasons == ({"a0": "malformed_row"} if wide else {})


REFUSED = {
    "another encoding": ("image,caption\n0.jpg,a dog\n".encode("utf-16"), "t.csv: is UTF-16 text; save it as UTF-8"),
    "two of a name": (b"image,caption,caption\n", "t.csv has two columns called 'caption'; rename one"),
    "other columns": (b"filepath\ttitle\n", "its first line has filepath.title; set image_column"),
    "nothing": (b"", "its first line has nothing"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_tables_that_cannot_be_read_are_refused_at_once(tmp_path, case):
    data, message = REFUSED[case]
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        list_shards(CorpusConfig("own", "table", str(tmp_path / "t.csv"), image_root=str(tmp_path)))
    assert "\n" not in str(caught.value)
