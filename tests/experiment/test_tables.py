"""Training sets that differ in their words alone, and what two rankings share."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from experiment.tables import read_truth, replace_words, share_curation
from storage import tables
from tests.training.synthetic import write_training_set


def _rows(workspace):
    manifest = tables.read_manifest(str(workspace), "training_set")
    return tables.read_parts(manifest), [
        pq.ParquetFile(file).metadata.num_row_groups for file in manifest.files
    ]


@pytest.fixture
def curated(tmp_path):
    return tmp_path / "ours", write_training_set(tmp_path / "ours", [30, 20], 8)


def test_other_words_and_nothing_else_is_other(curated, tmp_path):
    source, keys = curated
    words = {key: ["sky", "sea", "sun", "fog", "too many"][: number % 6] for number, key in enumerate(keys)}
    made = replace_words(source, tmp_path / "truth", words, "truth")
    (old, groups), (new, new_groups) = _rows(source), _rows(tmp_path / "truth")
    assert (new_groups, new.schema) == (groups, old.schema)
    for name in ("key", "image", "caption", "caption_nouns"):
        assert new.column(name).equals(old.column(name))
    for number, row in enumerate(
        new.select(["archive_concepts", "archive_scores", "archive_clusters"]).to_pylist()
    ):
        expected = words[keys[number]][:4]  # the archives' length
        assert [word for word in row["archive_concepts"] if word] == expected
        assert row["archive_scores"] == [1.0] * len(expected) + [0.0] * (4 - len(expected))
        assert row["archive_clusters"] == [*range(len(expected)), *[-1] * (4 - len(expected))]
    assert made.recipe != tables.read_manifest(str(source), "training_set").recipe
    before = [Path(file).stat().st_mtime_ns for file in made.files]
    assert replace_words(source, tmp_path / "truth", words, "truth").recipe == made.recipe
    assert [
        Path(file).stat().st_mtime_ns for file in made.files
    ] == before  # finished: nothing is written again


def test_without_words_archives_are_empty(curated, tmp_path):
    replace_words(curated[0], tmp_path / "captions", {}, "none")
    table, _ = _rows(tmp_path / "captions")
    assert set(table.column("archive_concepts").combine_chunks().flatten().to_pylist()) == {""}


def test_a_truth_of_other_pairs_is_refused(curated, tmp_path):
    with pytest.raises(UserError, match="does not know the pair web/00000/000000000"):
        replace_words(curated[0], tmp_path / "truth", {"other": ["sky"]}, "truth")
    assert tables.find_manifest(str(tmp_path / "truth"), "training_set") is None


def test_truth_is_read_by_key(tmp_path):
    file = tmp_path / "truth.jsonl"
    file.write_text('{"key": "a", "labels": ["sky", "dog"], "named": []}\n')
    assert read_truth(file) == {"a": ["sky", "dog"]}
    file.write_text('{"key": "a"}\n')
    with pytest.raises(UserError, match="needs a key and a list of labels"):
        read_truth(file)


def test_shared_tables_are_the_same_files_and_what_is_ranked_is_not_shared(curated, tmp_path):
    source, _ = curated
    (source / "pairs" / "_parts").mkdir(parents=True)
    (source / "pairs" / "_parts" / "a.parquet").write_bytes(b"rows")
    share_curation(source, tmp_path / "paper")
    assert (source / "pairs/_parts/a.parquet").samefile(tmp_path / "paper/pairs/_parts/a.parquet")
    assert not (tmp_path / "paper" / "training_set").exists()
