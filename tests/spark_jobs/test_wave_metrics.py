"""What the jobs' waves tell of themselves adds up to the tables."""

from __future__ import annotations

import pytest

from spark_jobs import watch
from storage import tables
from storage.metrics import now, read_metrics

pytestmark = pytest.mark.slow
BUILT = [
    "pairs",
    "image_embeddings",
    "caption_nouns",
    "concepts",
    "pair_concepts",
    "index_parts",
    "archives",
    "training_set",
]


def test_lines_add_up_to_the_tables(curated):
    runs = {lines[0]["table"]: lines for lines in read_metrics(str(curated.workspace))}
    assert list(runs) == BUILT
    for name, lines in runs.items():
        assert [line["complete"] for line in lines] == [False] * (len(lines) - 1) + [True]
        assert lines[-1]["units_done"] == lines[-1]["units"]
        assert lines[-2]["units_done"] == sum(line["units_here"] for line in lines)
        assert all(1e8 < line["memory"] < 1e11 for line in lines[:-1])
        manifest = tables.read_manifest(str(curated.workspace), name)
        assert {line["recipe"] for line in lines} == {manifest.recipe}
        assert sum(line["rows"] for line in lines) == manifest.rows
        assert sum(line["rows_in"] for line in lines) == manifest.rows_in
        rejects = [line["rejects"] for line in lines]
        assert {
            reason: sum(found.get(reason, 0) for found in rejects) for reason in manifest.rejects
        } == manifest.rejects


def test_watching_what_is_complete(curated):
    text = watch.watch_text(curated.config, now())
    assert [line.split()[0] for line in text.splitlines()] == BUILT
    assert text.count("complete since") == len(BUILT)
    assert "114 rows, 6 rejected" in text.splitlines()[0]
