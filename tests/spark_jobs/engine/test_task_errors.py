"""Whatever ends a job for want of rights, space or whole files is one sentence; bugs keep their traces."""

from __future__ import annotations

import pytest

from configs.errors import UserError
from configs.schema import CocuConfig
from spark_jobs.engine.task_errors import as_user_errors, translated
from spark_jobs.mining.caption_nouns import build_caption_nouns
from spark_jobs.mining.counting import count_concepts
from spark_jobs.mining.moments import image_moments
from storage import tables
from storage.small_files import write_atomically
from tests.curation.synthetic import make_corpus
from tests.spark_jobs.workspaces import write_workspace


def test_outputs_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "report.html").mkdir()
    (tmp_path / "report.html" / "inside").touch()
    for place in (tmp_path / "report.html", tmp_path / "file" / "summary.json", tmp_path / ("n" * 300)):
        with (
            pytest.raises(UserError, match="cannot write: .*mend the rights or the path") as caught,
            as_user_errors(),
        ):
            write_atomically(str(place), b"text")
        assert "\n" not in str(caught.value)
        assert str(tmp_path) in str(caught.value)


def test_what_a_store_refuses_is_said():
    text = (
        "org.apache.spark.SparkException: stage failure\nOSError: When testing for existence of bucket 'b': "
        "AWS Error ACCESS_DENIED during HeadBucket operation: No response body.\n\tat org"
    )
    message = str(translated(RuntimeError(text)))
    assert message.startswith("the store refused: OSError: When testing for existence of bucket 'b'")
    assert "\n" not in message


def test_a_bug_keeps_its_trace():
    with pytest.raises(ZeroDivisionError), as_user_errors():
        print(1 / 0)


@pytest.mark.slow
def test_a_damaged_part_ends_counting_and_moments_with_a_sentence(spark, tmp_path):
    write_workspace(tmp_path, {"web": make_corpus(60, concepts=10)}, rows_per_part=20)
    pairs = tables.read_manifest(str(tmp_path), "pairs")
    nouns = build_caption_nouns(spark, CocuConfig(workspace=str(tmp_path)), pairs)
    for table, work in {
        "pairs": lambda manifest: count_concepts(spark, manifest, nouns, 1, 100),
        "image_embeddings": lambda manifest: image_moments(spark, manifest),
    }.items():
        manifest = tables.read_manifest(str(tmp_path), table)
        file = manifest.files[1]
        with open(file, "r+b") as stream:
            stream.truncate(100)
        with pytest.raises(UserError, match=f"{file}: not a whole Parquet file"), as_user_errors():
            work(manifest)
