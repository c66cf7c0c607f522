"""`explain` and the report's data on a small workspace whose archives were made without Spark."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from configs.errors import UserError
from configs.schema import CocuConfig, ReportConfig
from spark_jobs import explain as entry
from spark_jobs.reporting.data import load_report_data
from spark_jobs.reporting.explain_text import explain
from spark_jobs.reporting.page import render_report
from storage import tables
from tests.curation.synthetic import make_corpus
from tests.spark_jobs.workspaces import write_table, write_workspace

ARCHIVE = {
    "concept_ids": [7, 3],
    "concepts": ["concept 7", "concept 3"],
    "scores": [2.0, 1.25],
    "clusters": [1, 0],
    "in_caption": [False, True],
    "votes": [2, 0],
    "named_by": [[0, 1], []],
    "probe": [0.25, 0.125],
    "neighbours": ["web/00000/000001", "web/00000/000002"],
    "similarities": [0.9, 0.8],
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """Sixty pairs; every archive is the same one, that of row 5 is empty."""
    folder = tmp_path_factory.mktemp("workspace")
    write_workspace(folder, {"web": make_corpus(60, concepts=30)}, rows_per_part=25)
    parts = {}
    for part in tables.read_manifest(str(folder), "pair_concepts").parts:
        first = int(part.name.rpartition("-")[2])
        rows = range(first, first + part.rows)
        columns = {name: [[] if row == 5 else values for row in rows] for name, values in ARCHIVE.items()}
        keys = pa.array([f"web/00000/{row:06d}" for row in rows])
        parts[part.name] = pa.table({"key": keys, **columns})
    write_table(folder, "archives", "build_archives", parts, "archives")
    return folder


def test_a_pair_is_explained(workspace):
    text = explain(str(workspace), "web/00000/000042")
    captions = tables.read_parts(tables.read_manifest(str(workspace), "pairs")).column("caption").to_pylist()
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "web/00000/000042"
    assert captions[42][:40] in " ".join(lines[1:3])
    assert any(line.startswith(f"0.900 {captions[1][:30]}") and "web/00000/000001" in line for line in lines)
    assert "+ concept 7 score 2.0000 cluster 1 named by neighbours 1 and 2; the probe (25%)" in lines
    assert "= concept 3 score 1.2500 cluster 0 the probe (12%)" in lines


def test_an_empty_archive_is_explained(workspace):
    text = explain(str(workspace), "web/00000/000005")
    assert "0 neighbours" in text
    assert "0 concepts" in text


@pytest.mark.parametrize("key", ["web/00000/000060", "web/00009/000001", "dog", "", "../../etc/passwd"])
def test_an_unknown_key_is_an_error_with_keys_as_they_look(workspace, key):
    with pytest.raises(UserError, match="is not in the archives of .*; keys look like web/00000/0000"):
        explain(str(workspace), key)


def test_the_command_prints_and_fails_with_one_line(workspace, tmp_path):
    command = [sys.executable, "spark_jobs/explain.py", "web/00000/000001", f"workspace={workspace}"]
    root = Path(entry.__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "web/00000/000001")
    command[-1] = f"workspace={tmp_path}/none"
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "run the job build_archives first" in done.stderr
    assert not (tmp_path / "none").exists()


def test_the_reports_numbers_are_the_tables(workspace):
    data = load_report_data(str(workspace), CocuConfig(report=ReportConfig(samples=7)))
    captions = tables.read_parts(tables.read_manifest(str(workspace), "pair_concepts")).column("concept_ids")
    lengths = [len(ids) for ids in captions.to_pylist()]
    assert sorted(data.caption_counts.tolist()) == sorted(lengths)
    assert sorted(data.added_counts.tolist()) == [0] + [1] * 59
    assert data.looked_at == (60, 60)
    assert len(data.scores) == 59 * 2
    counts = np.bincount(np.concatenate([ids for ids in captions.to_pylist() if ids]).astype(int))
    assert dict(data.concepts)["concept 0"] == counts[0]  # the table of a given list has no counts
    assert [count for _, count in data.concepts] == sorted((c for c in counts if c), reverse=True)
    assert len({pair.key for pair in data.pairs}) == 7
    assert all(near.caption and near.image for pair in data.pairs for near in pair.neighbours)
    assert "An empty archive" in render_report(
        load_report_data(str(workspace), CocuConfig(report=ReportConfig(samples=60)))
    )
