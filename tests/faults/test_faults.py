"""The faults of `python -m tests.faults`, smaller, each as a test."""

from __future__ import annotations

import shutil

import pytest

from configs.loading import load_config
from storage import tables
from tests import harness
from tests.faults import broken, calm, kills, mismatch, poison, soak, storage
from tests.faults.storage import needs_mount
from tests.harness.installed import need

pytestmark = pytest.mark.slow
EMBED = ("pairs", "image_embeddings")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return calm.prepare(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def vectors(spark, tmp_path_factory):
    return soak.prepare(spark, tmp_path_factory.mktemp("vectors"), rows=8000, dimension=32)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with harness.standalone_cluster(tmp_path_factory.mktemp("cluster")) as url:
        yield url


def _assert_well(outcome):
    assert outcome.verdict == "ok"
    assert (outcome.found, outcome.doubled) == (outcome.expected, 0)
    assert outcome.tries > 0


def test_killed_executors_lose_no_embedding(corpus, cluster, tmp_path):
    _assert_well(kills.executor_killed(corpus.calm, corpus.config, tmp_path, cluster, "embed_images", EMBED))


def test_killed_executors_lose_no_archive(vectors, cluster, tmp_path):
    _assert_well(
        kills.executor_killed(vectors.calm, vectors.config, tmp_path, cluster, "build_archives", soak.NAMES)
    )


def test_a_hung_task_is_done_elsewhere_and_doubles_no_row(corpus, cluster, tmp_path):
    _assert_well(kills.worker_frozen(corpus, tmp_path, cluster))


def test_a_killed_driver_goes_on_where_it_was(corpus, tmp_path):
    _assert_well(kills.driver_killed(corpus.calm, corpus.config, tmp_path, "embed_images", EMBED))


def test_a_killed_driver_goes_on_with_the_archives(vectors, tmp_path):
    _assert_well(
        kills.driver_killed(vectors.calm, vectors.config, tmp_path, "build_archives", soak.NAMES, waves=(5,))
    )


def test_of_two_runs_at_once_one_stops(corpus, tmp_path):
    _assert_well(kills.two_runs(corpus, tmp_path))


@needs_mount
def test_a_full_disk_is_a_clear_error_and_the_old_tables_stay(spark, corpus, tmp_path):
    _assert_well(storage.disk_full(spark, corpus, tmp_path))


@needs_mount
def test_a_read_only_workspace_is_a_clear_error(spark, corpus, tmp_path):
    _assert_well(storage.read_only(spark, corpus, tmp_path))


def test_every_broken_sample_is_accounted_for(spark, corpus, tmp_path):
    clip = load_config(str(corpus.config)).clip
    _assert_well(broken.broken_shards(spark, (clip.name, clip.pretrained), tmp_path))


def test_poisoned_files_are_refused_and_run_nothing(corpus, tmp_path):
    poison.explode(tmp_path / "seen-to-work")
    assert (tmp_path / "seen-to-work").exists()
    _assert_well(poison.poisoned_files(corpus, tmp_path))


@needs_mount
def test_executors_that_differ_are_named_at_the_start(corpus, tmp_path):
    _assert_well(mismatch.executor_differs(corpus, tmp_path))


def test_spark_jobs_run_nothing_of_a_pickled_petastorm_schema(spark, corpus, tmp_path):
    marker = tmp_path / "ran"
    folder = poison.write_poisoned_training_set(tmp_path / "set", marker)
    clip = load_config(str(corpus.config)).clip
    for pattern in (folder, f"{folder}/*"):
        source = {"name": "web", "format": "parquet", "path": str(pattern)}
        config = harness.write_config(tmp_path, folder, (clip.name, clip.pretrained), corpora=[source])
        workspace = tmp_path / "workspace"
        shutil.rmtree(workspace, ignore_errors=True)
        calm.run_here(spark, "ingest", config, workspace)
        assert tables.read_manifest(str(workspace), "pairs").rows_in >= 20
        assert not marker.exists()


def test_the_poisoned_training_set_would_run_code_through_petastorm(tmp_path):
    """Else the test above, and the training reader's, could not fail."""
    need("petastorm")
    import petastorm

    marker = tmp_path / "ran"
    folder = poison.write_poisoned_training_set(tmp_path / "set", marker)
    try:
        with petastorm.make_batch_reader(folder.as_uri(), reader_pool_type="dummy", num_epochs=1) as reader:
            next(reader)
    except Exception:
        pass  # what the payload gives back is no schema
    assert marker.exists()


def test_credentials_are_in_no_output_and_no_file(corpus):
    for place, secret in calm.SECRETS.items():
        assert secret not in corpus.output, place
        holding = [
            str(file.relative_to(corpus.calm))
            for file in corpus.calm.rglob("*")
            if file.is_file() and secret.encode() in file.read_bytes()
        ]
        assert holding == [], place
    named = (corpus.calm / "pairs" / "_manifest.json").read_text()
    assert "spark.hadoop.fs.s3a.session.token" in named  # the property's name, so that a run can be repeated
