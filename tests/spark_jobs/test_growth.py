"""A corpus that grows: what is new is done, what stands is not touched, and the result is that of a whole run."""

from __future__ import annotations

import json
import shutil
import tarfile

import pyarrow.parquet as pq
import pytest

from storage import tables
from tests import harness
from tests.faults import calm

JOBS = ("ingest", "embed_images", "mine_concepts", "build_index", "build_archives", "export_training")
PER_PAIR = ("pairs", "image_embeddings", "pair_concepts", "archives", "training_set")
SAMPLES = 30


def _run(spark, place, workspace, *overrides, jobs=JOBS):
    for job in jobs:
        failed = calm.run_here(spark, job, place / "config.yaml", workspace, *overrides)
        if failed:
            return failed
    return ""


def _files(workspace, table):
    """Part -> (file, when it was written) of a complete table."""
    manifest = tables.read_manifest(str(workspace), table)
    return {
        part.name: (part.file, (workspace / table / part.file).stat().st_mtime_ns) for part in manifest.parts
    }


def _exported(workspace):
    """Samples in the shards for open_clip and in the data set for Hugging Face."""
    sizes = json.loads((workspace / "training_set_open_clip" / "sizes.json").read_text())
    samples = 0
    for name in sizes:
        with tarfile.open(workspace / "training_set_open_clip" / name) as tar:
            samples += sum(member.endswith(".jpg") for member in tar.getnames())
    assert samples == sum(sizes.values())
    files = (workspace / "training_set_hugging_face" / "data").iterdir()
    return [samples, sum(pq.read_metadata(file).num_rows for file in files)]


@pytest.fixture(scope="module")
def world(tmp_path_factory, spark):
    """Three shards, of which two are in the corpus at first; the paper's ranking and a given vocabulary."""
    place = tmp_path_factory.mktemp("growth")
    harness.write_shards(place / "all", 3, SAMPLES)
    (place / "shards").mkdir()
    for number in (0, 1):
        shutil.copy2(place / "all" / f"{number:05d}.tar", place / "shards")
    (place / "words.txt").write_text("\n".join(harness.WORDS) + "\n")
    harness.write_config(
        place, place / "shards", harness.write_tiny_clip(place / "clip"), rows_per_part=20,
        concepts={"vocabulary": str(place / "words.txt"), "min_count": 1}, archives={"ranking": "paper", "top": 8},
        export={"archive_length": 8, "row_group_rows": 16, "open_clip": True, "hugging_face": True},
    )  # fmt: skip
    assert _run(spark, place, place / "two") == ""
    return place


@pytest.fixture
def grown(world, tmp_path):
    """A copy of the finished workspace, and a folder of shards that may be changed: (place, workspace)."""
    shutil.copytree(world / "two", tmp_path / "ws")
    shutil.copytree(world / "shards", tmp_path / "shards")
    shutil.copy2(world / "config.yaml", tmp_path)
    return tmp_path, tmp_path / "ws"


def test_a_new_shard_costs_its_own_pairs_and_gives_what_a_whole_run_gives(spark, world, tmp_path, capsys):
    shutil.copytree(world / "two", tmp_path / "ws")
    shutil.copy2(world / "all" / "00002.tar", world / "shards")
    before = {table: _files(tmp_path / "ws", table) for table in PER_PAIR}
    try:
        old = harness.table_rows(tmp_path / "ws", "archives").to_pylist()
        assert _run(spark, world, tmp_path / "ws") == ""
        said = capsys.readouterr().out
        assert "pairs grows: 2 of 3 units stand, 1 to do" in said
        assert "concepts stay as they were mined" in said
        assert "0 of 30 new captions (0.0%) name no concept" in said
        for table in PER_PAIR:
            after = _files(tmp_path / "ws", table)
            assert {part: after[part] for part in before[table]} == before[table], table
            assert len(after) == len(before[table]) + 2, table  # 30 rows are two parts
            assert harness.stray_files(tmp_path / "ws", table) == []
        assert _exported(tmp_path / "ws") == [3 * SAMPLES, 3 * SAMPLES]
        assert _run(spark, world, tmp_path / "whole") == ""
        for table in ("pairs", "image_embeddings", "pair_concepts"):
            harness.assert_same_tables(tmp_path / "ws", tmp_path / "whole", [table])
        new = harness.table_rows(tmp_path / "ws", "archives").to_pylist()
        whole = harness.table_rows(tmp_path / "whole", "archives").to_pylist()
        assert new[: len(old)] == old
        assert new[len(old) :] == whole[len(old) :]
        assert any(key.startswith("web/00000/") for row in new[len(old) :] for key in row["neighbours"])
        assert whole[: len(old)] != old  # the old ones have neighbours among the new
        assert _run(spark, world, tmp_path / "ws", "archives.refresh=all", jobs=JOBS[3:]) == ""
        assert (
            "archives is complete" in capsys.readouterr().out
        )  # against the same index there is nothing to refresh
        shutil.rmtree(tmp_path / "ws")
        shutil.copytree(world / "two", tmp_path / "ws")
        assert _run(spark, world, tmp_path / "ws", "archives.refresh=all") == ""
        harness.assert_same_tables(tmp_path / "ws", tmp_path / "whole", PER_PAIR)
    finally:
        (world / "shards" / "00002.tar").unlink()


def _config_of(place):
    """The configuration with the shards of this folder; the corpus' files are others then, so all is done once."""
    return f"corpora=[{{name: web, format: webdataset, path: '{place}/shards/*.tar'}}]"


def test_shards_that_are_gone_leave_and_one_that_is_replaced_is_done_again(spark, world, tmp_path, capsys):
    place = tmp_path
    shutil.copytree(world / "shards", place / "shards")
    shutil.copy2(world / "all" / "00002.tar", place / "shards")
    shutil.copy2(world / "config.yaml", place)
    own = _config_of(place)
    jobs = JOBS[:2]
    assert _run(spark, place, place / "ws", own, jobs=jobs) == ""
    before = _files(place / "ws", "image_embeddings")
    (place / "shards" / "00001.tar").unlink()
    harness.write_shards(place / "other", 3, 10, seed=9)
    shutil.copy2(place / "other" / "00002.tar", place / "shards")
    capsys.readouterr()
    assert _run(spark, place, place / "ws", own, jobs=jobs) == ""
    said = capsys.readouterr().out
    assert (
        "pairs grows: 1 of 2 units stand, 1 to do; 1 are gone from the input and leave with their rows"
        in said
    )
    after = _files(place / "ws", "image_embeddings")
    kept = {part: file for part, file in before.items() if part.startswith("web/00000")}
    assert {part: after[part] for part in kept} == kept
    assert not any(part.startswith("web/00001") for part in after)
    keys = harness.table_rows(place / "ws", "image_embeddings").column("key").to_pylist()
    assert len(keys) == SAMPLES + 10
    assert harness.stray_files(place / "ws", "image_embeddings") == []


def test_a_corpus_read_otherwise_is_no_growth(spark, world, grown):
    place, workspace = grown
    other = f"corpora=[{{name: web, format: webdataset, path: '{world}/shards/*.tar', caption_column: alt}}]"
    failed = calm.run_here(spark, "ingest", place / "config.yaml", workspace, other)
    assert "caption_column was 'caption' and is now 'alt'; say overwrite=[pairs]" in failed


def test_other_settings_are_no_growth(spark, world, grown):
    place, workspace = grown
    failed = calm.run_here(spark, "ingest", place / "config.yaml", workspace, "ingest.short_side=100")
    assert "built from something else: ingest.short_side was 256 and is now 100" in failed


def test_a_table_that_overwrite_names_is_built_whole(spark, world, grown, capsys):
    place, workspace = grown
    before = _files(workspace, "archives")
    assert _run(spark, place, workspace, "overwrite=[archives]", jobs=["build_archives"]) == ""
    after = _files(workspace, "archives")
    assert before.keys() == after.keys()
    assert all(after[part] != before[part] for part in before)
