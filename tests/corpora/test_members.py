"""Every file of a shard ends in a pair or in a reject, whatever it is called and wherever it lies."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections import defaultdict

import numpy as np
import pytest

from configs.errors import UserError
from configs.schema import CorpusConfig
from corpora.folder_runs import cut_into_runs
from corpora.members import Members, member_name
from corpora.samples import Suffixes
from corpora.shards import list_shards
from tests.corpora.ingest_inputs import ingest, jpeg, write_tar

GOOD = jpeg()


def _files(names):
    """A JPEG or, with its own name in it, a caption for each name; in the order given."""
    kinds = {"txt": lambda n: f"caption of {n}".encode(), "json": lambda n: b"{}"}
    return [(n, kinds.get(n.rpartition(".")[2].lower(), lambda n: GOOD)(n)) for n in names.split()]


def _from_tar(folder, names, **options):
    write_tar(folder / "in/0.tar", _files(names))
    return ingest(CorpusConfig("web", "webdataset", str(folder / "in/0.tar"), **options), folder / "out")


def _from_folder(folder, names, **options):
    for name, data in _files(names):
        (folder / "in/0" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in/0" / name).write_bytes(data)
    return ingest(CorpusConfig("web", "files", str(folder / "in"), **options), folder / "out")


SHARDS = {
    "numbers": ("IMG.0001.jpg IMG.0001.txt IMG.0002.jpg IMG.0002.txt", ["IMG.0001", "IMG.0002"], {}),
    "versions": ("v1.2_x.jpg v1.2_x.txt v1.2_y.JPG v1.2_y.TXT", ["v1.2_x", "v1.2_y"], {}),
    "plain beside dotted": ("a.jpg a.txt a.b.jpg a.b.txt", ["a", "a.b"], {}),
    "webdataset's extras": ("0.jpg 0.seg.png 0.cls 0.meta.json 0.txt 1.jpg 1.txt", ["0", "1"], {}),
    "compound": (
        "s1.input.jpg s1.outputs.txt",
        [],
        {"s1.input": "missing_caption", "s1.outputs": "missing_image"},
    ),
    "halves of two": (
        "IMG.1.jpg IMG.2.txt IMG.3.jpg IMG.3.txt",
        ["IMG.3"],
        {"IMG.1": "missing_caption", "IMG.2": "missing_image"},
    ),
    "hidden folders": (".a/1.jpg .a/1.txt a/1.jpg a/1.txt", [".a%2F1", "a%2F1"], {}),
    "other names of JPEG": ("1.jfif 1.txt 2.jpe 2.txt", ["1", "2"], {}),
    "no suffix, and formats that are not read": (
        "1 1.txt 2.avif 2.txt",
        [],
        {"1": "missing_image", "2": "missing_image"},
    ),
    "strays": ("README.md 1.jpg 1.txt ._1.jpg data.tar.gz", ["1"], {"": "no_sample"}),
}


@pytest.mark.parametrize("read", [_from_tar, _from_folder], ids=["tar", "folder"])
@pytest.mark.parametrize("name", SHARDS)
def test_no_sample_vanishes_for_its_name(tmp_path, name, read):
    names, pairs, reasons = SHARDS[name]
    found = read(tmp_path, names)
    assert sorted(found.by_sample()) == sorted(pairs)
    assert found.reasons == reasons
    for row in found.pairs:
        assert (
            row["caption"]
            == f"caption of {row['key'].rpartition('/')[2].replace('%2F', '/')}.{'TXT' if 'y' in row['key'] else 'txt'}"
        )


def test_what_is_missing_is_named(tmp_path):
    found = _from_tar(tmp_path, "1 1.txt 2.avif 2.txt s1.input.jpg ._3.jpg")
    details = {row["sample"]: row["detail"] for row in found.rejects}
    assert details["1"].startswith("its files end in .txt, no suffix; images in jpg, jpeg")
    assert details["2"].startswith("its files end in .txt, .avif; images in")
    assert details["s1.input"] == "its files end in .jpg; captions in txt, text, caption or json"
    assert details[""] == "1 files: ._3.jpg"


@pytest.mark.parametrize("read", [_from_tar, _from_folder], ids=["tar", "folder"])
def test_the_corpus_may_say_which_suffixes_it_means(tmp_path, read):
    options = {"image_column": "input.jpg", "caption_column": "outputs.txt"}
    found = read(tmp_path, "s1.input.jpg s1.outputs.txt s2.input.jpg s2.outputs.txt", **options)
    assert [row["key"] for row in found.pairs] == ["web/0/s1", "web/0/s2"]
    assert [row["caption"] for row in found.pairs] == [
        "caption of s1.outputs.txt",
        "caption of s2.outputs.txt",
    ]


def test_members_that_lie_apart_are_one_reason_each(tmp_path):
    names = " ".join(f"{n}.{suffix}" for suffix in ("jpg", "txt", "json") for n in range(4))
    found = _from_tar(tmp_path, f"{names} whole.jpg whole.txt lone.jpg")
    expected = {**{str(n): "scattered_sample" for n in range(4)}, "lone": "missing_caption"}
    assert found.reasons == expected
    assert len(found.rejects) == 5
    assert "sorted by name" in found.rejects[0]["detail"]
    assert list(found.by_sample()) == ["whole"]


def test_links_are_named(tmp_path):
    path = write_tar(tmp_path / "in/0.tar", _files("1.jpg 1.txt"))
    with tarfile.open(path, "a") as tar:
        for name, kind in (("2.jpg", tarfile.LNKTYPE), ("3.jpg", tarfile.SYMTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "1.jpg"
            tar.addfile(link)
            text = tarfile.TarInfo(f"{name[0]}.txt")
            text.size = 9
            tar.addfile(text, io.BytesIO(b"a caption"))
    found = ingest(CorpusConfig("web", "webdataset", str(path)), tmp_path / "out")
    assert found.reasons == {"2": "missing_image", "3": "missing_image"}
    assert {row["detail"] for row in found.rejects} == {"a link to 1.jpg"}


JSON = {
    "list": ({"caption": ["a dog"]}, "the JSON's 'caption' is a list"),
    "number": ({"caption": 12}, "the JSON's 'caption' is a int"),
    "null": ({"caption": None}, "the JSON's 'caption' is null"),
    "other": ({"text": "a dog", "url": "x"}, "the JSON has no 'caption' but text, url; set caption_column"),
    "array": (["a dog"], "the JSON is a list, not an object"),
}


def test_captions_that_the_json_has_elsewhere(tmp_path):
    files = [
        f for n, (v, _) in JSON.items() for f in ((f"{n}.jpg", GOOD), (f"{n}.json", json.dumps(v).encode()))
    ]
    write_tar(tmp_path / "in/0.tar", files)
    corpus = CorpusConfig("web", "webdataset", str(tmp_path / "in/0.tar"))
    found = ingest(corpus, tmp_path / "out")
    assert found.pairs == []
    assert {row["sample"]: row["detail"] for row in found.rejects} == {
        n: text for n, (_, text) in JSON.items()
    }
    assert set(found.reasons.values()) == {"missing_caption"}
    corpus.caption_column = "text"
    found = ingest(corpus, tmp_path / "out")
    assert [row["caption"] for row in found.pairs] == ["a dog"]


def test_names_with_dots_in_zips(tmp_path):
    names = ["IMG.0001.jpg", "data/v1.2_x.jpg", "photo.jpeg", ".hidden.jpg", "list.txt"]
    (tmp_path / "zips").mkdir()
    with zipfile.ZipFile(tmp_path / "zips/0.zip", "w") as archive:
        for name in names:
            archive.writestr(name, GOOD)
    rows = "".join(f"{name}\tcaption of {name}\n" for name in names)
    (tmp_path / "t.tsv").write_text(f"file\tcaption\n{rows}")
    corpus = CorpusConfig("y", "yfcc14m", str(tmp_path / "t.tsv"), image_root=str(tmp_path / "zips"))
    found = ingest(corpus, tmp_path / "out")
    assert {key: row["caption"] for key, row in found.by_sample().items()} == {
        "IMG.0001": "caption of IMG.0001.jpg",
        "v1.2_x": "caption of data/v1.2_x.jpg",
        "photo": "caption of photo.jpeg",
    }
    assert [row["detail"] for row in found.rejects] == ["2 files: .hidden.jpg, list.txt"]


def test_a_folder_without_samples_names_what_it_saw(tmp_path):
    for name in ("a.avif", "b.avif"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"no folders and no images in .*; it holds a.avif, b.avif"):
        list_shards(CorpusConfig("web", "files", str(tmp_path)))


def test_a_large_folder_is_cut_without_cutting_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr("corpora.shards.FILES_A_SHARD", 3)
    names = (
        " ".join(f"{n:02d}.jpg {n:02d}.txt" for n in range(10)) + " IMG.1.jpg IMG.1.txt IMG.2.jpg IMG.2.txt"
    )
    found = _from_folder(tmp_path, names)
    assert [record.unit for record in found.records] == [f"web/files-{n:08d}" for n in (0, 3, 6, 9)]
    assert len(found.pairs) == 12
    assert found.rejects == []


def test_random_names_are_all_accounted_for():
    """Against a count by hand: of the names before the last dot, those with an image and a text are pairs."""
    source = np.random.default_rng(3)
    suffixes = Suffixes()
    for _ in range(400):
        words = ["".join(source.choice(list("ab1."), 3)).strip(".") or "x" for _ in range(6)]
        paths = {f"{word}.{source.choice(['jpg', 'png', 'txt', 'json'])}" for word in words for _ in "12"}
        kinds = defaultdict(set)
        for path in paths:
            name, _, suffix = path.rpartition(".")
            kinds[name].add("image" if suffix in ("jpg", "png") else "text")
        whole = {name for name, found in kinds.items() if len(found) == 2}
        runs = cut_into_runs(sorted(paths), suffixes, 2)
        assert sorted(path for _, run in runs for path in run) == sorted(paths)
        found = []
        for _, run in runs:
            members = Members(suffixes)
            for path in run:
                found.extend(members.add(path, member_name(path, suffixes), b'{"caption": "abc"}'))
            found.extend(members.finish())
        given = {sample.name for sample in found}
        assert {sample.name for sample in found if sample.problem is None} == whole
        assert len(found) == len(given)
        beside = {name for name in kinds if name.partition(".")[0] in whole}
        assert given | beside == set(kinds)
