"""The whole curation through spark-submit, its tables compared with plain NumPy and Python."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.loading import load_config
from models.clip import load_clip
from storage import tables
from storage.vectors import column_to_vectors
from tests import harness
from tests.curation import naive
from tests.faults import calm
from tests.training import launch

pytestmark = pytest.mark.slow
SHARDS, SAMPLES = 3, 50


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    clip = harness.write_tiny_clip(folder / "clip")
    harness.write_shards(folder / "shards", SHARDS, SAMPLES)
    _spoil(folder / "shards" / "00001.tar")
    config = harness.write_config(
        folder,
        folder / "shards",
        clip,
        archives={"top": 8, "ranking": "paper"},  # the formula that is computed naively below
        export={"archive_length": 8, "row_group_rows": 16, "webdataset": True},
    )
    done = harness.run(harness.submit("pipeline", config, folder / "workspace"))
    return folder, config, done


def _spoil(path: Path) -> None:
    """Cut a tar short in its last sample's image."""
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        last = [member for member in tar if member.name.endswith(".jpg")][-1]
    path.write_bytes(data[: last.offset_data + last.size // 2])


def _columns(folder: Path, table: str, *names: str) -> list[list]:
    rows = harness.table_rows(folder / "workspace", table, list(names))
    return [rows.column(name).to_pylist() for name in names]


def test_every_sample_is_a_pair_or_a_reject(corpus):
    folder, _, done = corpus
    summary = json.loads((folder / "workspace" / "summary.json").read_text())
    assert summary["pairs_out"] == SHARDS * SAMPLES - 1
    assert summary["rejects"] == {"truncated_shard": 1}
    assert summary["pairs_in"] == summary["pairs_out"] + 1
    assert set(summary["seconds"]) >= {
        "ingest",
        "embed_images",
        "mine_concepts",
        "build_index",
        "build_archives",
        "export_training",
    }
    rejects = tables.read_rejects(tables.read_manifest(str(folder / "workspace"), "pairs")).to_pylist()
    assert [(row["shard"], row["stage"], row["reason"]) for row in rejects] == [
        ("00001", "ingest", "truncated_shard")
    ]
    assert "report.html" in done.stdout
    keys = _columns(folder, "archives", "key")[0]
    assert len(set(keys)) == len(keys) == summary["pairs_out"]


def test_embeddings_are_the_models_own(corpus):
    folder, config, _ = corpus
    clip = load_clip(load_config(str(config)).clip)
    rows = harness.table_rows(folder / "workspace", "pairs", ["key", "image"])
    stored = harness.table_rows(folder / "workspace", "image_embeddings")
    assert stored.column("key").equals(rows.column("key"))
    pixels = [
        clip.prepare(Image.open(io.BytesIO(data)).convert("RGB"))
        for data in rows.column("image").to_pylist()[:20]
    ]
    expected = clip.encode_images(np.stack(pixels))
    np.testing.assert_allclose(column_to_vectors(stored.column("embedding"))[:20], expected, atol=2e-3)


def test_concepts_are_counted_over_all_captions(corpus):
    folder, _, _ = corpus
    captions = _columns(folder, "pairs", "caption")[0]
    names, counts = _columns(folder, "concepts", "concept", "count")
    for name, count in zip(names, counts, strict=True):
        if " " not in name:
            assert count == sum(name in caption.split() for caption in captions), name
    assert set(harness.WORDS) <= set(names)
    assert counts == sorted(counts, reverse=True)


def test_cosine_statistics_are_those_of_the_corpus(corpus):
    folder, _, _ = corpus
    images = column_to_vectors(
        harness.table_rows(folder / "workspace", "image_embeddings").column("embedding")
    ).astype(np.float64)
    rows = harness.table_rows(folder / "workspace", "concepts")
    cosines = column_to_vectors(rows.column("embedding")).astype(np.float64) @ images.T
    np.testing.assert_allclose(rows.column("cosine_mean").to_numpy(), cosines.mean(axis=1), atol=2e-4)
    np.testing.assert_allclose(rows.column("cosine_std").to_numpy(), cosines.std(axis=1), atol=2e-3)


def test_archives_equal_the_formula_computed_naively(corpus):
    folder, _, _ = corpus
    keys, ids, scores, in_caption, neighbours, similarities = _columns(
        folder, "archives", "key", "concept_ids", "scores", "in_caption", "neighbours", "similarities"
    )
    images = column_to_vectors(
        harness.table_rows(folder / "workspace", "image_embeddings").column("embedding")
    ).astype(np.float64)
    words = column_to_vectors(
        harness.table_rows(folder / "workspace", "concepts").column("embedding")
    ).astype(np.float32)
    words = (words / np.linalg.norm(words, axis=1, keepdims=True)).astype(np.float64)
    captions = _columns(folder, "pair_concepts", "concept_ids")[0]
    cosines = images @ words.T
    similar = images @ images.T
    row_of = {key: row for row, key in enumerate(keys)}
    for row in range(0, len(keys), 3):
        others = [row_of[key] for key in neighbours[row]]
        assert row not in others
        best = np.sort(np.delete(similar[row], row))[::-1][:8]
        np.testing.assert_allclose(similarities[row], best, atol=1e-3)
        expected = naive.paper(captions, others, lambda t, x, row=row: cosines[row if x is None else x, t])[
            :8
        ]
        np.testing.assert_allclose(scores[row], [score for _, score in expected], atol=1e-4)
        found = dict(zip(ids[row], scores[row], strict=True))
        for concept, score in expected:
            assert found.get(concept, scores[row][-1]) == pytest.approx(score, abs=1e-4)
        assert in_caption[row] == [concept in captions[row] for concept in ids[row]]


def test_training_set_is_the_join_padded_to_one_length(corpus):
    folder, _, _ = corpus
    keys, concepts, scores, clusters, nouns, captions = _columns(
        folder,
        "training_set",
        "key",
        "archive_concepts",
        "archive_scores",
        "archive_clusters",
        "caption_nouns",
        "caption",
    )
    archive_keys, archive_concepts, archive_scores = _columns(folder, "archives", "key", "concepts", "scores")
    assert keys == archive_keys
    for row in range(len(keys)):
        count = len(archive_concepts[row])
        assert concepts[row] == archive_concepts[row] + [""] * (8 - count)
        assert scores[row] == archive_scores[row] + [0.0] * (8 - count)
        assert [value >= 0 for value in clusters[row]] == [True] * count + [False] * (8 - count)
        assert nouns[row].split("\n")[0] in captions[row]


def test_webdataset_export_has_three_lines_of_text(corpus):
    folder, _, _ = corpus
    keys, captions, concepts = _columns(folder, "training_set", "key", "caption", "archive_concepts")
    texts, images = {}, {}
    for path in sorted((folder / "workspace" / "training_set_webdataset").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                stem, _, suffix = member.name.partition(".")
                {"txt": texts, "jpg": images}[suffix][stem] = tar.extractfile(member).read()
    assert len(texts) == len(images) == len(keys)
    for key, caption, archive in zip(keys, captions, concepts, strict=True):
        lines = texts[key.replace("/", "--")].decode().split("\n")
        assert lines[0] == caption
        assert lines[1] == ", ".join(concept for concept in archive if concept)
        assert len(lines[2].split(", ")) == len([concept for concept in archive if concept])


def test_a_second_run_does_nothing(corpus):
    folder, config, _ = corpus
    before = {path: path.stat().st_mtime_ns for path in (folder / "workspace").rglob("*.parquet")}
    done = harness.run(harness.submit("pipeline", config, folder / "workspace"))
    assert done.stdout.count("nothing to do") == 7
    assert {path: path.stat().st_mtime_ns for path in (folder / "workspace").rglob("*.parquet")} == before


def test_a_changed_setting_is_refused_by_name(corpus):
    folder, config, _ = corpus
    done = harness.run(
        harness.submit("pipeline", config, folder / "workspace", "archives.neighbours=4"), check=False
    )
    assert done.returncode == 2
    error = next(
        line for line in done.stdout.splitlines() if line.startswith("error:")
    )  # spark-submit joins the streams
    assert "neighbours was 8 and is now 4" in error
    assert "overwrite=true" in error


def test_one_corpus_against_anothers_index(spark, corpus, tmp_path):
    folder, _, _ = corpus
    harness.write_shards(tmp_path / "other", 1, 30, seed=9)
    clip = json.loads((folder / "config.yaml").read_text())["clip"]
    two = [
        {"name": name, "format": "webdataset", "path": f"{place}/*.tar"}
        for name, place in (("web", folder / "shards"), ("mine", tmp_path / "other"))
    ]
    config = harness.write_config(
        tmp_path, folder / "shards", (clip["name"], clip["pretrained"]), corpora=two,
        index={"corpora": ["web"]}, archives={"corpora": ["mine"], "top": 8, "neighbours": 1, "ranking": "calibrated"},
    )  # fmt: skip
    assert calm.run_here(spark, "pipeline", config, tmp_path / "workspace") == ""
    keys, neighbours = _columns(tmp_path, "archives", "key", "neighbours")
    assert len(keys) == 30
    assert all(key.startswith("mine/") for key in keys)
    assert all(len(found) == 1 and found[0].startswith("web/") for found in neighbours)


def test_ready_embeddings_come_out_as_archives(spark, corpus, tmp_path):
    """What clip-retrieval users have: .npy files, metadata, a word list with vectors."""
    folder, _, _ = corpus
    images = column_to_vectors(
        harness.table_rows(folder / "workspace", "image_embeddings").column("embedding")
    )
    keys, captions = _columns(folder, "pairs", "key", "caption")
    for part, rows in enumerate((slice(0, 80), slice(80, None))):
        np.save(tmp_path / f"img_emb_{part}.npy", images[rows])
        lines = [
            {"image": key, "caption": caption}
            for key, caption in zip(keys[rows], captions[rows], strict=True)
        ]
        (tmp_path / f"metadata_{part}.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    words = harness.table_rows(folder / "workspace", "concepts")
    (tmp_path / "words.txt").write_text("\n".join(words.column("concept").to_pylist()))
    np.save(tmp_path / "words.npy", column_to_vectors(words.column("embedding")))
    source = {
        "name": "ready",
        "format": "embeddings",
        "path": f"{tmp_path}/img_emb_*.npy",
        "metadata": f"{tmp_path}/metadata_*.jsonl",
        "key_column": "image",
    }
    config = harness.write_config(
        tmp_path, tmp_path, ("ViT-B-32", "unused"), corpora=[source],
        concepts={"vocabulary": f"{tmp_path}/words.txt", "embeddings": f"{tmp_path}/words.npy"},
        archives={"top": 8, "ranking": "paper"},
    )  # fmt: skip
    assert calm.run_here(spark, "pipeline", config, tmp_path / "workspace") == ""
    one, other = (_columns(place, "archives", "concepts", "scores") for place in (folder, tmp_path))
    assert one[0] == other[0]
    for left, right in zip(one[1], other[1], strict=True):
        np.testing.assert_allclose(left, right, atol=2e-3)


BAD = {
    "no corpora": (["corpora=[]"], "corpora is empty"),
    "no such shards": (["corpora=[{name: a, path: /nowhere/*.tar}]"], "/nowhere/*.tar: no file matches"),
    "unknown model": (["clip.name=ViT-B-61"], "open_clip has no such model; near: ViT-B-16"),
    "unknown weights": (
        ["clip.name=ViT-B-16", "clip.pretrained=opnai"],
        "neither a file here nor a tag of ViT-B-16; tags: openai",
    ),
    "unknown benchmark": (
        ["concepts.hold_out=[ade_20k]"],
        "neither a word nor a benchmark; did you mean 'ade20k'",
    ),
    "no vocabulary file": (["concepts.vocabulary=/nowhere.txt"], "/nowhere.txt: no such file"),
}


@pytest.mark.parametrize(("overrides", "message"), BAD.values(), ids=BAD.keys())
def test_mistakes_are_one_line_before_spark_starts(corpus, overrides, message, tmp_path):
    _, config, _ = corpus
    import sys

    command = [
        sys.executable,
        str(harness.ROOT / "spark_jobs" / "pipeline.py"),
        "--config",
        str(config),
        f"workspace={tmp_path}",
    ]
    done = harness.run([*command, *overrides], check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_index_that_was_tampered_with_is_refused(corpus, tmp_path):
    folder, config, _ = corpus
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    for table in ("pairs", "image_embeddings", "concepts", "pair_concepts", "index"):
        shutil.copytree(folder / "workspace" / table, workspace / table)
    victim = next((workspace / "index" / "_parts" / "vectors").iterdir())
    victim.write_bytes(victim.read_bytes()[:-100])
    done = harness.run(harness.submit("build_archives", config, workspace), check=False)
    assert done.returncode == 2
    assert victim.name in done.stdout


def test_two_processes_train_on_it_through_petastorm_and_horovod(corpus):
    folder, config, _ = corpus
    options = ["--config", str(config), f"workspace={folder / 'workspace'}", *launch.TINY, "train.epochs=2"]
    done = launch.run([*launch.horovodrun(2), sys.executable, "-m", "training.train", *options])
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((folder / "workspace" / "training" / "summary.json").read_text())
    assert summary["processes"] == 2
    assert summary["rows"] == 2 * (SHARDS * SAMPLES - 1)
    assert summary["losses"][1] < summary["losses"][0]
