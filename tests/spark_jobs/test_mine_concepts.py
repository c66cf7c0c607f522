"""mine_concepts on captions and vectors without images: vocabularies, hold-out, statistics, what it refuses."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from configs.errors import UserError
from configs.loading import load_config
from configs.schema import CocuConfig
from curation.text.nouns import noun_phrases
from spark_jobs import mine_concepts
from spark_jobs.mining.caption_nouns import tagged_parts
from storage import tables
from storage.vectors import column_to_vectors, vectors_to_column
from tests.harness import write_tiny_clip
from tests.spark_jobs.workspaces import write_table

WORDS = "dog cat tree car boat house river horse flower kite".split()
ROWS, WIDTH = 240, 32


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> tuple[str, str]:
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def captions() -> list[str]:
    source = random.Random(0)
    return [
        f"Two {source.choice(WORDS)}s near a stone bridge and a {source.choice(WORDS)}" for _ in range(ROWS)
    ]


@pytest.fixture
def workspace(tmp_path, captions) -> Path:
    vectors = np.random.default_rng(0).normal(size=(ROWS, WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs, images = {}, {}
    for start in range(0, ROWS, 100):
        part, rows = f"web/00000-{start:03d}", slice(start, min(ROWS, start + 100))
        keys = pa.array([f"web/00000/{row:03d}" for row in range(rows.start, rows.stop)])
        pairs[part] = pa.table({"key": keys, "caption": captions[rows]})
        images[part] = pa.table({"key": keys, "embedding": vectors_to_column(vectors[rows], WIDTH)})
    write_table(tmp_path, "pairs", "ingest", pairs, "pairs")
    write_table(tmp_path, "image_embeddings", "embed_images", images, "images")
    return tmp_path


def config_of(workspace: Path, clip: tuple[str, str], **concepts) -> CocuConfig:
    chosen = {"min_count": 5, **{name: str(v) if isinstance(v, Path) else v for name, v in concepts.items()}}
    values = {
        "workspace": str(workspace),
        "clip": {"name": clip[0], "pretrained": clip[1]},
        "concepts": chosen,
        "corpora": [{"name": "web", "path": "unused"}],
    }
    file = workspace / "config.yaml"
    file.write_text(json.dumps(values))
    return load_config(str(file))


def mined(spark, config: CocuConfig) -> tuple[pa.Table, list[list[str]]]:
    """The table concepts, and each caption's concepts by name."""
    mine_concepts.check(config)
    mine_concepts.run(spark, config)
    concepts, found = (
        tables.read_parts(tables.read_manifest(config.workspace, name))
        for name in ("concepts", "pair_concepts")
    )
    names = concepts.column("concept").to_pylist()
    return concepts, [[names[i] for i in ids] for ids in found.column("concept_ids").to_pylist()]


def test_nouns_and_phrases_are_counted_over_the_corpus(spark, workspace, clip, captions, capsys):
    concepts, found = mined(spark, config_of(workspace, clip))
    counts = dict(
        zip(concepts.column("concept").to_pylist(), concepts.column("count").to_pylist(), strict=True)
    )
    expected = Counter(word for text in captions for word in {w for w in WORDS if w in text})
    expected |= {"bridge": ROWS, "stone bridge": ROWS}
    assert counts == dict(expected)  # "stone" stands only in "stone bridge" and is no concept of its own
    assert concepts.column("concept_id").to_pylist() == list(range(len(counts)))
    for text, names in zip(captions, found, strict=True):
        assert set(names) == {name for name in counts if name in text}
    cosines = column_to_vectors(concepts.column("embedding")).astype(np.float64) @ _images(workspace).T
    np.testing.assert_allclose(concepts.column("cosine_mean").to_numpy(), cosines.mean(axis=1), atol=1e-3)
    np.testing.assert_allclose(concepts.column("cosine_std").to_numpy(), cosines.std(axis=1), atol=1e-3)
    said = capsys.readouterr().out
    assert "benchmark class names in the vocabulary: voc 5/20" in said  # dog, cat, car, boat, horse
    assert tables.read_manifest(str(workspace), "concepts").extra["benchmark_classes"]["voc"]["held"] == 5


def test_captions_are_tagged_once(spark, workspace, clip, captions, capsys):
    """The table of nouns is what export takes them from; it grows, and what was tagged otherwise is replaced."""
    config = config_of(workspace, clip)
    mined(spark, config)
    pairs = tables.read_manifest(str(workspace), "pairs")
    tagged = tagged_parts(config, pairs)
    assert list(tagged) == [part.name for part in pairs.parts]
    rows = pa.concat_tables([tables.read_file(address) for address in tagged.values()])
    assert rows.column("nouns").to_pylist() == ["\n".join(noun_phrases(caption)) for caption in captions]
    before = {name: Path(address).stat().st_mtime_ns for name, address in tagged.items()}
    mined(spark, replace(config_of(workspace, clip, min_count=200), overwrite=True))  # of the same nouns
    again = {name: Path(address).stat().st_mtime_ns for name, address in tagged_parts(config, pairs).items()}
    assert again == before
    assert "caption_nouns is complete (240 rows); nothing to do" in capsys.readouterr().out
    shorter = replace(config_of(workspace, clip, max_words=1), overwrite=True)
    assert tagged_parts(shorter, pairs) == {}
    mined(spark, shorter)
    assert len(tagged_parts(shorter, pairs)) == 3
    assert tagged_parts(config, pairs) == {}
    changed = replace(pairs, recipe="other", units=[replace(unit, made_of="new") for unit in pairs.units[:1]])
    assert tagged_parts(shorter, changed) == {}


def _images(workspace: Path) -> np.ndarray:
    manifest = tables.read_manifest(str(workspace), "image_embeddings")
    return column_to_vectors(tables.read_parts(manifest).column("embedding")).astype(np.float64)


def test_benchmark_classes_are_held_out(spark, workspace, clip, capsys):
    concepts, found = mined(spark, config_of(workspace, clip, hold_out=["voc", "flowers"]))
    names = set(concepts.column("concept").to_pylist())
    assert names == {"tree", "house", "river", "kite", "bridge", "stone bridge"}
    assert set().union(*found) == names
    assert "voc 0/20" in capsys.readouterr().out


def test_a_users_list_and_its_vectors(spark, workspace, capsys):
    """Rows follow their lines, though one is a double, one held out and one a word that mining never takes."""
    (workspace / "words.txt").write_text("photo\nboats\nDog\nboat\nstone  bridge\nkite\n")
    vectors = 3 * np.random.default_rng(1).normal(size=(6, WIDTH))
    np.save(workspace / "words.npy", vectors.astype(np.float32))
    given = {"vocabulary": workspace / "words.txt", "embeddings": workspace / "words.npy"}
    concepts, found = mined(spark, config_of(workspace, ("none", "none"), hold_out=["kites"], **given))
    assert concepts.column("concept").to_pylist() == ["photo", "boats", "Dog", "stone bridge"]
    stored = column_to_vectors(concepts.column("embedding")).astype(np.float64)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(stored, units[[0, 1, 2, 4]], atol=1e-3)
    cosines = units[[0, 1, 2, 4]] @ _images(workspace).T
    np.testing.assert_allclose(concepts.column("cosine_std").to_numpy(), cosines.std(axis=1), atol=1e-3)
    assert all("stone bridge" in names for names in found)
    assert "2 of 6 given concepts are left out: 1 doubles (boat = boats)" in capsys.readouterr().out


def _wardrobe(workspace: Path) -> dict[str, Path]:
    """200 images: coats, which 40 captions call so and 60 jackets, and boats; with a list and its vectors."""
    captions = ["a coat on a bench"] * 40 + ["a jacket on a bench"] * 60 + ["a boat on a lake"] * 100
    random_numbers = np.random.default_rng(3)
    vectors = np.repeat(np.eye(2, WIDTH), 100, axis=0) + random_numbers.normal(scale=0.05, size=(200, WIDTH))
    order = random_numbers.permutation(200)
    pairs, images = {}, {}
    for part, rows in (("web/00000-000", order[:80]), ("web/00001-000", order[80:])):
        keys = pa.array([f"{part[:-4]}/{row:03d}" for row in rows])
        pairs[part] = pa.table({"key": keys, "caption": [captions[row] for row in rows]})
        # The first row of each part has no image: embedding rejected it.
        images[part] = pa.table(
            {"key": keys[1:], "embedding": vectors_to_column(vectors[rows[1:]].astype(np.float16), WIDTH)}
        )
    write_table(workspace, "pairs", "ingest", pairs, "pairs")
    write_table(workspace, "image_embeddings", "embed_images", images, "images")
    (workspace / "words.txt").write_text("coat\njacket\nboat\nbench\n")
    texts = np.eye(4, WIDTH)[[0, 0, 1, 2]] + 0.1 * np.eye(4, WIDTH)
    np.save(workspace / "words.npy", texts.astype(np.float32))
    return {"vocabulary": workspace / "words.txt", "embeddings": workspace / "words.npy"}


def test_two_words_for_one_thing_are_one_concept_if_asked(spark, tmp_path, capsys):
    given = _wardrobe(tmp_path)
    concepts, found = mined(spark, config_of(tmp_path, ("none", "none"), merge="synonyms", **given))
    assert concepts.column("concept").to_pylist() == ["jacket", "boat", "bench"]
    assert Counter(map(tuple, found)) == {("jacket", "bench"): 100, ("boat",): 100}
    stored = column_to_vectors(concepts.column("embedding")).astype(np.float64)
    lines = np.load(tmp_path / "words.npy")[[1, 2, 3]]
    np.testing.assert_allclose(stored, lines / np.linalg.norm(lines, axis=1, keepdims=True), atol=1e-3)
    (told,) = tables.read_manifest(str(tmp_path), "concepts").extra["merges"]
    assert (told["concept"], told["into"], told["captions_with_both"]) == ("coat", "jacket", 0)
    assert told["image_cosine"] > 0.9
    assert "1 words merged into others: coat -> jacket" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, WIDTH), np.float32), "has 3 rows and .* 2 concepts"),
        (np.zeros((2, WIDTH), np.int64), "expected floats of shape"),
        (np.array([{}, {}]), "not a readable .npy"),
    ],
)
def test_vectors_that_do_not_fit_are_refused_at_start_up(workspace, array, message):
    (workspace / "words.txt").write_text("boat\ndog\n")
    np.save(workspace / "words.npy", array, allow_pickle=True)
    given = {"vocabulary": workspace / "words.txt", "embeddings": workspace / "words.npy"}
    with pytest.raises(UserError, match=message):
        mine_concepts.check(config_of(workspace, ("none", "none"), **given))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, WIDTH), np.float32), r"words\.npy: row 0 is zero or not finite"),
        (np.ones((2, 16), np.float32), "have 16 dimensions and the images' 32"),
    ],
)
def test_vectors_of_no_use_are_one_error(spark, workspace, array, message):
    (workspace / "words.txt").write_text("boat\ndog\n")
    np.save(workspace / "words.npy", array)
    given = {"vocabulary": workspace / "words.txt", "embeddings": workspace / "words.npy"}
    with pytest.raises(UserError, match=message):
        mined(spark, config_of(workspace, ("none", "none"), **given))


def test_an_empty_vocabulary_is_an_error(spark, workspace, clip):
    with pytest.raises(
        UserError, match=r"no concept occurs in 1000 of the 240 captions; lower concepts.min_count"
    ):
        mined(spark, config_of(workspace, clip, min_count=1000))
