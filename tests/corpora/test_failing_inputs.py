"""Users' inputs that once went wrong, through the product's own tasks: the expected rows, reasons and messages.

The files are not the project's to give away, so they are found through COCU_REAL_DATA; each kind is also made by
hand in the other tests of this folder. Those of evaluation (`voc_*`) are in tests/evaluation.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from configs.schema import ClipConfig, CorpusConfig, IngestConfig
from corpora.embedding_files import paired_files
from corpora.images import prepare_image
from models.clip import load_clip
from spark_jobs.import_embeddings import Source, pairs_unit, vectors_unit
from storage import tables
from storage.units import Unit
from storage.vectors import column_to_vectors
from tests import harness
from tests.corpora.ingest_inputs import ingest, jpeg, pixels
from tests.corpora.peak_memory import peak_growth

DOG = "a dog on the grass"
NO_CAPTION = "its files end in .jpg; captions in"
KEY = "the JSON has no 'caption' but "
VALUE = "the JSON's 'caption' is "

TARS = {
    "wds/dots-all.tar": (dict.fromkeys(["IMG.0001", "IMG.0002", "IMG.0003"], DOG), {}),
    "wds/dots.tar": (dict.fromkeys(["v1.0_0001", "img.2020.01", "0003"], DOG), {}),
    "wds/compound.tar": ({}, {
        "s0001.input": ("missing_caption", NO_CAPTION), "s0001.outputs": ("missing_image", "its files end in .txt; images in"),
        "s0002.input": ("missing_caption", NO_CAPTION), "s0002.outputs": ("missing_image", "its files end in .txt; images in"),
    }),
    "wds/unordered.tar": ({}, {f"000{n}": ("scattered_sample", "pack the shard again, sorted by name") for n in range(4)}),
    "wds/hidden.tar": (dict.fromkeys([".a%2F0001", "a%2F0001"], DOG), {}),
    "wds/links.tar": ({"0001": DOG}, {"0002": ("missing_image", "a link to 0001.jpg")}),
    "wds/noext.tar": (dict.fromkeys(["0002", "0003"], DOG), {
        "0001": ("missing_image", "its files end in .txt, no suffix; images in jpg"),
        "0004": ("missing_image", "its files end in .txt, .avif; "), "0005": ("missing_image", "its files end in .txt, .jp2; "),
        "0006": ("missing_image", "its files end in .txt, .heic; "),
    }),
    "wds/json.tar": ({"bom": "a dog with bom", "utf16": "a dog in utf sixteen"}, {
        "null": ("missing_caption", VALUE + "null"), "list": ("missing_caption", VALUE + "a list"),
        "number": ("missing_caption", VALUE + "a int"), "emptystr": ("short_caption", "0 characters"),
        "nokey": ("missing_caption", KEY + "key; set"), "textkey": ("missing_caption", KEY + "text; set caption_column"),
        "TEXT": ("missing_caption", KEY + "TEXT; set"), "captions": ("missing_caption", KEY + "captions; set"),
        "dict": ("missing_caption", VALUE + "a dict"), "bool": ("missing_caption", VALUE + "a bool"),
        "upperkey": ("missing_caption", KEY + "Caption; set"), "alt": ("missing_caption", KEY + "alt, title; set"),
        "nan": ("missing_caption", VALUE + "a float"), "emptyt": ("short_caption", "0 characters"),
        "nojson": ("missing_caption", NO_CAPTION),
    }),
    "thin/00000.tar": ({**dict.fromkeys([f"0000{n}" for n in range(4)], DOG), "thin": "a thin line on a page"}, {}),
}  # fmt: skip
ROWS = ["a dog on grass", "a red car", "two men"]
PATHS = {
    f"00000000{n}": ("missing_image", f"not the image's bytes but a string: a/{n + 1}.jpg") for n in range(3)
}
PARQUET = {
    "both_image_and_jpg": (ROWS, {}),
    "dup_cols": ([], {"": ("unreadable_shard", "has 2 columns called 'caption'; rename")}),
    "dup_img": ([], {"": ("unreadable_shard", "has 2 columns called 'image'; rename")}),
    "hf_path_only": ([], {f"00000000{n}": ("missing_image", f"no bytes, only path /data/{n}.jpg") for n in range(3)}),
    "img_base64": (ROWS, {}),
    "img_path": ([], PATHS),
    "url_only": ([], {"": ("unreadable_shard", "needs an image column ('image', jpg, png or webp) and 'caption', has URL, TEXT")}),
}  # fmt: skip
COLUMNS = {"image_column": "filepath", "caption_column": "title"}
TABLES = {
    "tabs.tsv": ({}, ["a dog on the grass", "a red car"]),
    "commas.csv": ({}, ["a dog, a cat, and a bird", "a red, fast car"]),
    "cr.csv": ({}, ["a dog", "a red car"]),
    "openclip.csv": (COLUMNS, ["a dog", "a red car"]),
}
PLAIN = {
    0: "a dog & a cat on the grass",
    1: 'a "red" car near a house',
    2: "a boat on the water",
    3: "a bird <3 flowers",
    4: "a dog 'smiles' at a man",
    7: "a house with a tree",
    13: "<PERSON> with a hat",
}


@pytest.fixture
def inputs(real_data):
    return real_data / "failing-inputs"


def _assert_rejects(found, expected):
    assert found.reasons == {name: reason for name, (reason, _) in expected.items()}
    assert len(found.rejects) == len(expected)
    for row in found.rejects:
        assert row["detail"].startswith(expected[row["sample"]][1])


@pytest.mark.parametrize("name", TARS)
def test_tars(inputs, tmp_path, name):
    captions, rejects = TARS[name]
    found = ingest(CorpusConfig("x", "webdataset", str(inputs / name)), tmp_path)
    assert {key: row["caption"] for key, row in found.by_sample().items()} == captions
    _assert_rejects(found, rejects)


def test_a_thin_picture_is_embedded_like_any_other(inputs, tmp_path):
    found = ingest(CorpusConfig("x", "webdataset", str(inputs / "thin/00000.tar")), tmp_path / "out")
    row = found.by_sample()["thin"]
    assert (row["width"], row["height"]) == (65_000, 1)
    clip = load_clip(ClipConfig(*harness.write_tiny_clip(tmp_path)))
    image = Image.fromarray(pixels(row["image"]).astype(np.uint8))
    peak, prepared = peak_growth(lambda: clip.prepare(image))
    assert peak < 30_000_000
    vector = clip.encode_images(np.array(prepared)[None])
    assert np.linalg.norm(vector.astype(np.float64)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", PARQUET)
def test_parquet(inputs, tmp_path, name):
    captions, rejects = PARQUET[name]
    found = ingest(CorpusConfig("x", "parquet", str(inputs / f"parquet/{name}.parquet")), tmp_path)
    assert [row["caption"] for row in found.pairs] == captions
    _assert_rejects(found, rejects)


def test_one_bad_parquet_file_does_not_end_the_others(inputs, tmp_path):
    found = ingest(CorpusConfig("x", "parquet", str(inputs / "parquet")), tmp_path)
    assert [row["caption"] for row in found.pairs] == 2 * ROWS  # with bytes, and in base64
    assert len(found.rejects) == 3 + 6


@pytest.mark.parametrize("name", TABLES)
def test_tables(inputs, tmp_path, name):
    for n in range(2):
        (tmp_path / f"{n}.jpg").write_bytes(jpeg(seed=n))
    options, captions = TABLES[name]
    corpus = CorpusConfig("x", "table", str(inputs / "tables" / name), image_root=str(tmp_path), **options)
    found = ingest(corpus, tmp_path / "out")
    assert [row["caption"] for row in found.pairs] == captions
    assert found.rejects == []


def test_html_of_captions(inputs, tmp_path):
    found = ingest(CorpusConfig("x", "webdataset", str(inputs / "vocab_caps/entities.tar")), tmp_path)
    captions = [row["caption"] for row in found.pairs]
    assert found.rejects == []
    assert {number: captions[number] for number in PLAIN} == PLAIN
    assert not any(re.search(r"&(amp|quot|nbsp|lt|#39);|<br>", caption) for caption in captions)


@pytest.mark.parametrize(
    "name", ["icc_1100000", "phys_short", "png_badcrc_ancillary", "png_bigtext", "ztxt_1100000"]
)
def test_pngs_of_fine_pixels(inputs, name):
    result = prepare_image((inputs / f"png/{name}.png").read_bytes(), IngestConfig())
    assert (result.width, result.height) == (96, 64)


def _import(folder, kind, out, **options):
    """Every file by the tasks: (captions, keys, vectors)."""
    corpus = CorpusConfig(
        "x", "embeddings", f"{folder}/img_emb/*.npy", metadata=f"{folder}/metadata/*.{kind}", **options
    )
    captions, keys, vectors = [], [], []
    for number, (npy, metadata) in enumerate(paired_files(corpus)):
        dimension = np.load(npy).shape[1]
        source = Source(corpus, npy, metadata, dimension, IngestConfig())
        record = pairs_unit(Unit(f"x/{number:05d}", 0, source), f"{out}/pairs", "r")
        assert record.rejects == {}
        (part,) = record.parts
        rows = tables.read_file(f"{out}/pairs/{part.file}").to_pylist()
        captions.extend(row["caption"] for row in rows)
        keys.extend(row["key"].rpartition("/")[2] for row in rows)
        done = vectors_unit(Unit(part.name, part.rows, (source, f"{out}/pairs/{part.file}")), f"{out}/v", "r")
        found = tables.read_file(f"{out}/v/{done.parts[0].file}").column("embedding")
        vectors.extend(column_to_vectors(found))
    return captions, keys, np.array(vectors, np.float64)


def test_vectors_meet_their_own_captions(inputs, tmp_path):
    captions, _, vectors = _import(inputs / "npy_order", "parquet", tmp_path)
    raw = [np.load(inputs / f"npy_order/img_emb/img_emb_{n}.npy").astype(np.float64) for n in range(11)]
    assert captions == [f"a dog of file {n:02d}" for n, rows in enumerate(raw) for _ in rows]
    every = np.concatenate(raw)
    np.testing.assert_allclose(vectors, every / np.linalg.norm(every, axis=1, keepdims=True), atol=1e-3)


def test_quotes_in_tsv_and_dates_in_json_lines(inputs, tmp_path):
    captions, keys, _ = _import(inputs / "npy_tsv_quotes", "tsv", tmp_path / "a", key_column="key")
    assert captions == ['"A dog" he said', 'a 5" nail', '"unbalanced at start', "a cat"]
    assert keys == ["001@0", "002@1", "003@2", "004@3"]
    captions, keys, _ = _import(inputs / "npy_jsonl_keydate", "jsonl", tmp_path / "b", key_column="key")
    assert captions == ["a dog", "a cat on grass"]
    assert keys == ["2020-01-01@0", "2020-01-02@1"]
