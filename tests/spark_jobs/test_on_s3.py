"""The whole pipeline with shards and workspace in a bucket, its driver killed on the way, then training."""

from __future__ import annotations

import json
import re

import pytest

from storage import addresses, tables
from storage.addresses import list_folder, resolve
from storage.copies import upload_folder
from storage.locks import hold_lock
from storage.progress import is_begun
from tests import harness
from tests.faults import calm
from tests.harness.object_store import object_store
from tests.training import launch

pytestmark = pytest.mark.slow
WORKSPACE = "s3a://bucket/ws"
TABLES = ("pairs", "image_embeddings", "concepts", "pair_concepts", "archives", "training_set")
SHARDS, SAMPLES = 3, 8


@pytest.fixture(scope="module")
def bucket():
    """An S3 server that this process and all it starts are led to."""
    with pytest.MonkeyPatch.context() as patch, object_store() as server:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        addresses._s3.cache_clear()
        yield server
    addresses._s3.cache_clear()


@pytest.fixture(scope="module")
def story(spark, bucket, tmp_path_factory):
    """(folder, log of the killed run, output of the run after it); the local twin is in folder/workspace."""
    folder = tmp_path_factory.mktemp("s3")
    harness.write_shards(folder / "shards", SHARDS, SAMPLES)
    clip = harness.write_tiny_clip(folder / "clip")
    local = harness.write_config(folder, folder / "shards", clip, rows_per_part=4)
    assert calm.run_here(spark, "pipeline", local, folder / "workspace") == ""
    (folder / "remote").mkdir()
    remote = harness.write_config(folder / "remote", folder / "shards", clip, rows_per_part=4)
    remote.write_text(remote.read_text().replace(str(folder / "shards"), "s3a://bucket/in"))
    upload_folder(folder / "shards", "s3a://bucket/in")
    command = harness.submit("pipeline", remote, WORKSPACE, "spark.units_per_wave=2")
    driver = calm.start(command, folder / "killed.log")
    harness.wait_for(
        lambda: driver.poll() is not None or is_begun(WORKSPACE, "image_embeddings"), 600, "nothing committed"
    )
    harness.kill_tree(driver.pid)
    assert driver.wait() == -9
    done = harness.run(command, timeout=800)
    return folder, remote, done.stdout


def test_tables_in_a_bucket_equal_those_on_a_disk(story):
    folder, _, _ = story
    for name in TABLES:
        there = tables.read_parts(tables.read_manifest(WORKSPACE, name))
        here = tables.read_parts(tables.read_manifest(str(folder / "workspace"), name))
        assert there.equals(here), name
    assert not (harness.ROOT / "s3a:").exists()


def test_the_run_after_the_killed_one_goes_on(story):
    _, _, out = story
    found = re.search(r"embed_images: goes on; (\d+) of (\d+) units are done", out)
    assert found is not None, out
    assert 0 < int(found.group(1)) < int(found.group(2)) == SHARDS * SAMPLES // 4
    assert re.search(r"ingest: pairs is complete .* nothing to do", out)


def test_nothing_but_named_files_is_left(story):
    filesystem, path = resolve(WORKSPACE)
    left = [info.path for info in list_folder(filesystem, path, recursive=True) if info.is_file]
    named = [
        resolve(address)[1]
        for name in (*TABLES, "index_parts", "caption_nouns")
        for manifest in [tables.read_manifest(WORKSPACE, name)]
        for address in [*manifest.files, *manifest.reject_files]
    ]
    others = {name.removeprefix(f"{path}/") for name in left} - {
        name.removeprefix(f"{path}/") for name in named
    }
    index = tables.read_manifest(WORKSPACE, "index").extra
    vectors = {
        f"index/_parts/{part['vectors'].removeprefix('../../')}" for part in index["index"]["segments"]
    }
    assert {name for name in others if name.startswith("index/_parts/vectors/")} == vectors
    others = {name for name in others if not name.startswith(f"index/{index['folder']}/")}
    assert {f"{name}/_manifest.json" for name in (*TABLES, "index")} <= others
    assert not [
        name for name in others if "_progress" in name or "_lock" in name or name.endswith(".parquet")
    ]


def test_a_second_run_of_a_job_stops_and_says_why(story):
    _, config, _ = story
    with hold_lock(WORKSPACE, "pairs", "ingest"):
        command = harness.submit("ingest", config, WORKSPACE, "overwrite=true", "ingest.short_side=200")
        done = harness.run(command, check=False)
    assert done.returncode == 2
    # spark-submit hands an application's errors on by its own output
    assert "another run of ingest is at work on table 'pairs'" in done.stdout + done.stderr


def test_training_reads_the_bucket(story, tmp_path):
    command = launch.train_command(
        WORKSPACE, "train.reader=arrow", "train.epochs=1", f"train.output={tmp_path}/out"
    )
    done = launch.run(command, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["rows"] == SHARDS * SAMPLES
    assert summary["bad_images"] == 0
