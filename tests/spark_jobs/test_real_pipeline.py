"""The whole pipeline on real photos, real tars and real CLIP vectors (skipped where there are none)."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from storage import tables
from storage.vectors import column_to_vectors
from tests import harness
from tests.corpora.ingest_inputs import members, write_tar
from tests.curation import naive

pytestmark = pytest.mark.slow
PHOTOS = 48
NEIGHBOURS = 5


def write_vit_b_32(path: Path) -> Path:
    """ViT-B-32 as open_clip makes it without pretrained weights, saved as a local checkpoint."""
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", pretrained=None)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return path


def write_photos(folder: Path, real_data: Path, count: int) -> Path:
    """A CSV of (path, caption) of COCO photos, with two rows that cannot be used."""
    lines = (real_data / "coco-captions-masks/pairs.jsonl").read_text().splitlines()[:count]
    rows = [(row["file"], row["captions"][0]) for row in map(json.loads, lines)]
    with (folder / "photos.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "caption"))
        writer.writerows([*rows, ("not-there.jpg", "a photo that was never downloaded"), (rows[0][0], "")])
    return folder / "photos.csv"


def tar_photos(real_data: Path) -> dict[Path, dict[str, bytes]]:
    """The photos of the four tars of another project's tests."""
    found: dict[Path, dict[str, bytes]] = {}
    for path in sorted((real_data / "clip-retrieval-fixtures/tests/test_clip_inference/test_tars").iterdir()):
        with tarfile.open(path) as tar:
            found[path] = {m.name.partition(".")[0]: tar.extractfile(m).read() for m in tar if m.isfile()}
    return found


def corpora(folder: Path, real_data: Path, count: int) -> list[dict[str, str]]:
    """The photos as a table; the tars as they are, which hold no captions, and again with a caption each."""
    photos = write_photos(folder, real_data, count)
    shards = tar_photos(real_data)
    for path, images in shards.items():
        files = [m for name, data in images.items() for m in members(name, data, f"a photo named {name}")]
        write_tar(folder / "captioned" / path.name, files)
    tars = next(iter(shards)).parent
    return [
        {
            "name": "coco",
            "format": "table",
            "path": str(photos),
            "image_root": str(real_data / "coco-captions-masks/images"),
            "image_column": "path",
        },
        {"name": "tars", "format": "webdataset", "path": f"{tars}/image{{1..4}}.tar"},
        {"name": "captioned", "format": "webdataset", "path": f"{folder}/captioned/*.tar"},
    ]


@pytest.fixture(scope="module")
def curated(tmp_path_factory, real_data):
    folder = tmp_path_factory.mktemp("real")
    checkpoint = write_vit_b_32(folder / "vit-b-32.safetensors")
    config = harness.write_config(
        folder, folder, ("ViT-B-32", str(checkpoint)), rows_per_part=30, corpora=corpora(folder, real_data, PHOTOS),
        concepts={"min_count": 2}, archives={"neighbours": NEIGHBOURS, "top": 12},
        report={"samples": 600},  # more than there are: all
    )  # fmt: skip
    done = harness.run(
        harness.submit("pipeline", config, folder / "ws", options=["--driver-memory", "2g"]), timeout=600
    )
    yield folder, done
    shutil.rmtree(folder)  # 600 MB of weights


def test_every_photo_comes_out_with_an_archive(curated, real_data):
    folder, _ = curated
    summary = json.loads((folder / "ws/summary.json").read_text())
    in_tars = sum(map(len, tar_photos(real_data).values()))
    assert summary["pairs_in"] == PHOTOS + 2 + 2 * in_tars
    assert summary["pairs_out"] == PHOTOS + in_tars
    assert summary["rejects"] == {"missing_caption": in_tars, "missing_image": 1, "short_caption": 1}
    rows = harness.table_rows(folder / "ws", "archives").to_pylist()
    coco = [row for row in rows if row["key"].startswith("coco/")]
    assert len(coco) == PHOTOS
    assert len(rows) == PHOTOS + in_tars
    assert all(row["neighbours"] for row in rows)
    assert sum(bool(row["concepts"]) for row in coco) > 0.9 * PHOTOS
    for row in rows:
        assert row["scores"] == sorted(row["scores"], reverse=True)


def test_the_stored_photos_are_small_whole_jpegs(curated):
    folder, _ = curated
    for row in harness.table_rows(folder / "ws", "pairs").to_pylist():
        assert min(row["width"], row["height"]) <= 256
        assert row["image"][:2] == b"\xff\xd8"
        assert row["image"][-2:] == b"\xff\xd9"
        assert row["caption"].strip() == row["caption"]


def test_the_report_shows_the_photos(curated):
    folder, done = curated
    assert "report.html" in done.stdout
    page = (folder / "ws/report.html").read_text()
    for key in harness.table_rows(folder / "ws", "archives", ["key"]).column("key").to_pylist():
        assert key in page
    assert "data:image/jpeg;base64," in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_real_clip_vectors_come_out_as_archives(tmp_path, real_data):
    """`import_embeddings`: the archives are the paper's formula, computed naively from the files."""
    source = real_data / "real-clip"
    corpus = {
        "name": "flickr",
        "format": "embeddings",
        "path": str(source / "image_embeddings.npy"),
        "metadata": str(source / "pairs.jsonl"),
        "key_column": "key",
    }
    config = harness.write_config(
        tmp_path, tmp_path, ("ViT-B-32", "openai"), rows_per_part=300, corpora=[corpus],
        concepts={"vocabulary": str(source / "concepts.txt"), "embeddings": str(source / "concept_embeddings.npy")},
        archives={"ranking": "paper", "neighbours": 8, "top": 12},
    )  # fmt: skip
    harness.run(harness.submit("pipeline", config, tmp_path / "ws"), timeout=600)
    images = np.load(source / "image_embeddings.npy").astype(np.float64)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    rows = harness.table_rows(tmp_path / "ws", "archives").to_pylist()
    assert [int(row["key"].rpartition("@")[2]) for row in rows] == list(range(len(images)))
    stored = harness.table_rows(tmp_path / "ws", "image_embeddings").column("embedding")
    np.testing.assert_allclose(column_to_vectors(stored), images, atol=1e-3)

    concepts = tables.read_parts(tables.read_manifest(str(tmp_path / "ws"), "concepts"))
    words = column_to_vectors(concepts.column("embedding")).astype(np.float64)
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    captions = harness.table_rows(tmp_path / "ws", "pair_concepts").column("concept_ids").to_pylist()
    cosines = images @ words.T
    similar = images @ images.T
    np.fill_diagonal(similar, -1)
    names = concepts.column("concept").to_pylist()
    for row in range(0, len(rows), 7):
        found = [int(key.rpartition("@")[2]) for key in rows[row]["neighbours"]]
        best = np.sort(similar[row])[::-1][:8]
        np.testing.assert_allclose(similar[row, found], best, atol=1e-3)
        expected = naive.paper(captions, found, lambda t, x, row=row: cosines[row if x is None else x, t])[
            :12
        ]
        np.testing.assert_allclose(rows[row]["scores"], [score for _, score in expected], atol=2e-3)
        scores = {names[t]: score for t, score in expected}
        for name, score in zip(rows[row]["concepts"], rows[row]["scores"], strict=True):
            assert scores.get(name, expected[-1][1]) == pytest.approx(score, abs=2e-3)
    named = [{names[t] for t in ids} for ids in captions]
    missed = [set(row["concepts"]) - held for row, held in zip(rows, named, strict=True)]
    assert np.mean([len(found) for found in missed]) > 2  # archives say more than captions
