"""The demo's comparison of rankings on a workspace in which a word was merged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from configs.loading import load_config
from curation.csr import Csr
from demo.rankings import MERGED_TOO, compare_rankings
from models.clip import load_clip
from storage import tables
from storage.vectors import column_to_vectors
from tests.curation import naive
from tests.curation.synthetic import Corpus, build, unit
from tests.spark_jobs.workspaces import write_table, write_workspace

WORDS = ["dog", "grass", "boat"]
SAID = ["dog", "puppy", "grass", "boat"]
FORMS = {"dog": ["dog", "puppy"], "grass": ["grass"], "boat": ["boat"]}
ROWS, WIDTH = 60, 96


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Sixty images; captions name dog, puppy, grass or boat, and puppy was merged into dog."""
    config = load_config("configs/demo.yaml")
    rng = np.random.default_rng(0)
    said = rng.integers(0, 4, ROWS)
    found = Csr.from_lists([[max(0, int(word) - 1)] for word in said])
    texts = load_clip(config.clip).encode_texts([f"a photo of a {word}" for word in WORDS])
    # Images lie near their caption's word, so that all cosines are well above 0.
    vectors = unit(texts[found.values] + 0.05 * rng.normal(size=(ROWS, WIDTH))).astype(np.float16)
    statistics = np.zeros(3, np.float32), np.ones(3, np.float32)
    keys = pa.array([f"web/00000/{row:06d}" for row in range(ROWS)])
    corpus = Corpus(keys, vectors, found, pa.array(WORDS), texts, *statistics)
    write_workspace(tmp_path, {"web": corpus})
    told = pa.table({"key": keys, "caption": [f"a {SAID[word]}" for word in said]})
    write_table(tmp_path, "pairs", "ingest", {"web/00000-000000": told}, "pairs")
    build(corpus, tmp_path / "index" / "folder")
    manifest = write_table(tmp_path, "index", "build_index", {}, "index")
    manifest.extra["folder"] = "folder"
    tables.write_manifest(manifest)
    rows = [{"key": key, "labels": ["dog"]} for key in keys.to_pylist()]
    (tmp_path / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "forms.json").write_text(json.dumps(FORMS))
    return tmp_path


def compared(workspace: Path) -> dict:
    config = load_config("configs/demo.yaml")
    return compare_rankings(str(workspace), workspace / "truth.jsonl", workspace / "forms.json", config)


def merge_puppy(workspace: Path) -> None:
    manifest = tables.read_manifest(str(workspace), "concepts")
    manifest.extra["merges"] = [{"concept": "puppy", "into": "dog"}]
    tables.write_manifest(manifest)


def test_the_papers_ranking_has_the_words_that_were_merged_and_ours_has_not(workspace):
    merge_puppy(workspace)
    found = compared(workspace)
    assert list(found["rankings"]) == ["paper", MERGED_TOO, "calibrated"]
    names = [
        {name for row in found["examples"] for name, _ in row[ranking]} for ranking in ("paper", "calibrated")
    ]
    assert "puppy" in names[0]
    assert names[1] == set(WORDS)
    clip = load_clip(load_config("configs/demo.yaml").clip)
    texts = clip.encode_texts([f"a photo of a {word}" for word in [*WORDS, "puppy"]]).astype(float)
    rows = tables.read_parts(tables.read_manifest(str(workspace), "pairs"), ["caption"]).column(0).to_pylist()
    captions = [[[*WORDS, "puppy"].index(caption.removeprefix("a "))] for caption in rows]
    images = images_of(workspace)
    for number, row in enumerate(found["examples"]):
        likeness = images @ images[number]
        likeness[number] = -9
        near = np.argsort(-likeness, kind="stable")[:8].tolist()
        expected = naive.paper(
            captions, near, lambda t, j, own=number: float(texts[t] @ images[own if j is None else j])
        )
        assert [name for name, _ in row["paper"]] == [[*WORDS, "puppy"][t] for t, _ in expected[:5]]


def images_of(workspace: Path) -> np.ndarray:
    rows = tables.read_parts(tables.read_manifest(str(workspace), "image_embeddings"), ["embedding"])
    return column_to_vectors(rows.column("embedding")).astype(float)


def test_where_nothing_was_merged_two_rankings_are_compared(workspace):
    found = compared(workspace)
    assert list(found["rankings"]) == ["paper", "calibrated"]
    assert {name for row in found["examples"] for name, _ in row["paper"]} <= set(WORDS)
