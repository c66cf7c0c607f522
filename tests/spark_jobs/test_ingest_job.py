"""The ingest job on real Spark: the same rows as its task gives, and what it does when run again."""

from __future__ import annotations

import pytest

from configs.errors import UserError
from configs.schema import CocuConfig, CorpusConfig, IngestConfig, SparkConfig
from spark_jobs import ingest as job
from storage import tables
from tests import harness
from tests.corpora.ingest_inputs import ingest, jpeg, members, write_tar

pytestmark = pytest.mark.slow


@pytest.fixture
def corpora(tmp_path):
    """A corpus of tars (one cut, one that is none) and one of a table."""
    for shard in range(4):
        files = [
            m for n in range(12) for m in members(f"{shard}{n:03d}", jpeg(90 + n, 64, n), f"caption {n}")
        ]
        write_tar(tmp_path / f"tars/{shard:05d}.tar", files)
    cut = tmp_path / "tars/00001.tar"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (tmp_path / "tars/00003.tar").write_bytes(b"<html>")
    (tmp_path / "images").mkdir()
    for n in range(5):
        (tmp_path / f"images/{n}.jpg").write_bytes(jpeg(90 + n, 64, n))
    rows = [f"{n}.jpg\ta photo numbered {n}\n" for n in range(6)]
    (tmp_path / "list.tsv").write_text("image\tcaption\n" + "".join(rows))
    table = CorpusConfig("own", "table", str(tmp_path / "list.tsv"), image_root=str(tmp_path / "images"))
    return [CorpusConfig("web", "webdataset", str(tmp_path / "tars/*.tar")), table]


def _config(tmp_path, corpora, **changes):
    return CocuConfig(
        workspace=str(tmp_path / "ws"),
        corpora=corpora,
        ingest=IngestConfig(rows_per_part=5, **changes),
        spark=SparkConfig(units_per_wave=2),
    )


def _rejects(manifest):
    return sorted((r["key"], r["reason"]) for r in tables.read_rejects(manifest).to_pylist())


def test_spark_gives_what_the_task_gives(spark, tmp_path, corpora, capsys):
    manifest = job.run(spark, _config(tmp_path, corpora))
    expected = [ingest(corpus, tmp_path / corpus.name, rows_per_part=5) for corpus in corpora]
    rows = harness.table_rows(tmp_path / "ws", "pairs").to_pylist()
    assert rows == [row for found in expected for row in found.pairs]
    assert _rejects(manifest) == sorted((r["key"], r["reason"]) for found in expected for r in found.rejects)
    assert manifest.rows_in == len(rows) + sum(manifest.rejects.values())
    assert manifest.rejects == {"truncated_shard": 1, "unreadable_shard": 1, "missing_image": 1}
    assert max(part.rows for part in manifest.parts) == 5
    summary = capsys.readouterr().out
    assert f"ingest: pairs: {manifest.rows_in} pairs in, {len(rows)} out, 3 rejected" in summary
    assert "rejected: 1 missing_image" in summary

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ws").rglob("*.parquet")}
    job.run(spark, _config(tmp_path, corpora, threads=3, image_seconds=7.0))  # how, not what
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "ws").rglob("*.parquet")} == before

    with pytest.raises(UserError, match="ingest.short_side was 256 and is now 32"):
        job.run(spark, _config(tmp_path, corpora, short_side=32))
    write_tar(tmp_path / "tars/00003.tar", members("3000", jpeg(), "the shard was downloaded again"))
    capsys.readouterr()
    again = job.run(spark, _config(tmp_path, corpora))
    total = len(manifest.units)
    assert f"pairs grows: {total - 1} of {total} units stand, 1 to do" in capsys.readouterr().out
    assert again.rows == manifest.rows + 1
    assert "unreadable_shard" not in again.rejects


def test_what_gives_nothing_says_so_and_why(spark, tmp_path, capsys):
    files = [(f"{n}.avif", b"x") for n in range(3)] + [("3.txt", b"a caption")]
    write_tar(tmp_path / "a/00000.tar", files)
    barren = CorpusConfig("web", "webdataset", str(tmp_path / "a/*.tar"))
    with pytest.raises(UserError, match="not one pair came of 1 shards: corpus 'web' gave no pair") as caught:
        job.run(spark, _config(tmp_path, [barren]))
    assert "1 missing_image, 1 no_sample, the first web/00000/3: missing_image, its files end in .txt" in str(
        caught.value
    )
    write_tar(tmp_path / "b/00000.tar", members("0", jpeg(), "a caption"))
    fruitful = CorpusConfig("own", "webdataset", str(tmp_path / "b/*.tar"))
    assert job.run(spark, _config(tmp_path, [barren, fruitful])).rows == 1
    assert "ingest: corpus 'web' gave no pair: 1 missing_image" in capsys.readouterr().out
