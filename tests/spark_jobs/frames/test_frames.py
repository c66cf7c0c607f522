"""The functions for DataFrames give what the jobs give, row for row."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as sql

from configs.errors import UserError
from spark_jobs import frames
from spark_jobs.engine.task_errors import as_user_errors
from storage import tables
from storage.vectors import column_to_vectors
from tests import harness

pytestmark = pytest.mark.slow


def _source(spark, curated):
    """The corpus' own Parquet files, with the keys that ingest gives."""
    file = sql.element_at(sql.split(sql.input_file_name(), "/"), -1)
    key = sql.concat(sql.lit("web/"), sql.regexp_replace(file, ".parquet", "/"), "key")
    return spark.read.parquet(f"{curated.folder}/source").withColumn("key", key)


def _table(spark, curated, name):
    """A finished table as a DataFrame."""
    return spark.read.parquet(*tables.read_manifest(str(curated.workspace), name).files)


def _stored(curated, name, *columns):
    rows = harness.table_rows(curated.workspace, name).to_pylist()
    return {row["key"]: tuple(row[column] for column in columns) for row in rows}


def _vectors(curated):
    rows = harness.table_rows(curated.workspace, "image_embeddings")
    return dict(zip(rows.column("key").to_pylist(), column_to_vectors(rows.column("embedding")), strict=True))


def _assert_vectors(found, expected):
    """float32 as given, float16 as stored; what another batch of the model rounds otherwise is its last bit."""
    assert found.keys() == expected.keys()
    for key, vector in found.items():
        np.testing.assert_allclose(vector, expected[key].astype(np.float32), atol=3e-4, rtol=0, err_msg=key)


def test_images_of_a_parquet_file_as_they_come(spark, curated):
    embed = frames.embed_image_or_reason(spark, curated.config)
    frame = _source(spark, curated).withColumn("found", embed("image")).select("key", "found.*")
    rows = {row.key: row for row in frame.collect()}
    assert len(rows) == 120
    rejects = tables.read_rejects(tables.read_manifest(str(curated.workspace), "pairs")).to_pylist()
    reasons = {row["key"]: row["reason"] for row in rejects}
    assert sorted(set(reasons.values())) == ["missing_image", "truncated_image", "unreadable_image"]
    assert {key: row.reason for key, row in rows.items() if row.reason} == reasons
    assert all((row.embedding is None) == (row.reason is not None) for row in rows.values())
    _assert_vectors({key: row.embedding for key, row in rows.items() if row.embedding}, _vectors(curated))


def test_images_of_a_table_and_other_columns_untouched(spark, curated):
    pairs = _table(spark, curated, "pairs")
    udf = pairs.select("key", frames.embed_image(spark, curated.config, raw=False)("image").alias("e"))
    _assert_vectors({row.key: row.e for row in udf.collect()}, _vectors(curated))
    plain = frames.with_embeddings(spark, curated.config, pairs, embedding="e", reason="why", raw=False)
    assert plain.columns == [*pairs.columns, "e", "why"]
    rows = plain.collect()
    _assert_vectors({row.key: row.e for row in rows}, _vectors(curated))
    before = {row.key: row for row in pairs.collect()}
    assert {row.key: row[:-2] for row in rows} == {key: tuple(row) for key, row in before.items()}


def test_images_come_in_the_precision_of_the_workspaces_vectors(spark, curated, tmp_path):
    """Also where this machine by itself would choose another one."""
    stored = tables.read_manifest(str(curated.workspace), "image_embeddings")
    other = {"fp32": "bf16", "bf16": "fp32"}[stored.extra["precision"]]
    extra = {**stored.extra, "precision": other}
    tables.write_manifest(dataclasses.replace(stored, workspace=str(tmp_path), extra=extra))
    asked = dataclasses.replace(curated.config.clip, precision=other)
    pairs = _table(spark, curated, "pairs").select("key", "image").limit(12).cache()

    def found(**changes):
        embed = frames.embed_image(spark, dataclasses.replace(curated.config, **changes), raw=False)
        return np.array([row.e for row in pairs.select(embed("image").alias("e")).collect()])

    assert curated.config.clip.precision == "auto"
    np.testing.assert_array_equal(found(workspace=str(tmp_path)), found(clip=asked))
    assert np.abs(found(workspace=str(tmp_path)) - found()).max() > 1e-4


def test_a_filter_behind_it_embeds_nothing_twice(spark, curated):
    found = frames.embed_image(spark, curated.config)("image")
    frame = _source(spark, curated).withColumn("e", found).where("e is not null").select("key", "e")
    plan = frame._jdf.queryExecution().executedPlan().toString()
    assert plan.count("ArrowEvalPython") == 1
    assert frame.count() == 114


def test_texts_in_the_prompt_are_the_concepts_vectors(spark, curated):
    concepts = _table(spark, curated, "concepts")
    embed = frames.embed_text(spark, curated.config, prompt=curated.config.clip.prompt)
    rows = concepts.select("concept", "embedding", embed("concept").alias("found")).collect()
    assert len(rows) > 10
    for row in rows:
        stored = np.frombuffer(row.embedding, "<f2").astype(np.float32)
        np.testing.assert_allclose(row.found, stored, atol=5e-4)
    plain = frames.embed_text(spark, curated.config)
    one = spark.createDataFrame([("dog",), (None,)], "text string").select(plain("text")).collect()
    assert one[1][0] is None
    assert np.abs(np.array(one[0][0]) - next(row.found for row in rows if row.concept == "dog")).max() > 1e-3


def test_concepts_of_captions(spark, curated):
    names = harness.table_rows(curated.workspace, "concepts").column("concept").to_pylist()
    expected = {
        key: [names[number] for number in ids]
        for key, (ids,) in _stored(curated, "pair_concepts", "concept_ids").items()
    }
    for frame, raw in ((_source(spark, curated), True), (_table(spark, curated, "pairs"), False)):
        find = frames.find_concepts(spark, curated.config, raw)
        rows = {row.key: row.found for row in frame.select("key", find("caption").alias("found")).collect()}
        assert {key: rows[key] for key in expected} == expected
    assert sum(map(len, expected.values())) > 150
    odd = spark.createDataFrame([("x",), (None,), ("no such word",)], "caption string")
    assert [
        row[0] for row in odd.select(frames.find_concepts(spark, curated.config)("caption")).collect()
    ] == [
        None,
        None,
        [],
    ]


NAMES = ("concepts", "scores", "clusters", "neighbours")


def _assert_archives(found, curated):
    expected = _stored(curated, "archives", *NAMES)
    assert found.keys() == expected.keys()
    for key, (concepts, scores, clusters, neighbours) in found.items():
        stored = expected[key]
        assert (concepts, clusters, neighbours[:32]) == (stored[0], stored[2], stored[3]), key
        np.testing.assert_allclose(scores, stored[1], rtol=1e-5, err_msg=key)


def test_archives_of_a_tables_embeddings(spark, curated):
    images = _table(spark, curated, "image_embeddings")
    archive = frames.concept_archive(spark, curated.config)
    udf = images.select("key", archive("embedding", "key").alias("found")).select("key", "found.*").collect()
    _assert_archives({row.key: tuple(row[1:]) for row in udf}, curated)
    plain = frames.with_archives(spark, curated.config, images, key="key").select("key", *NAMES).collect()
    _assert_archives({row.key: tuple(row[1:]) for row in plain}, curated)


def test_archives_of_ones_own_vectors(spark, curated):
    vectors = _vectors(curated)
    key = sorted(vectors)[7]
    own = [float(value) for value in vectors[key].astype(np.float32)]
    longer = [3 * value for value in own]
    rows = [
        (own, key),
        (longer, "elsewhere"),
        (None, key),
        ([0.0] * len(own), key),
        ([float("nan")] * len(own), None),
    ]
    frame = spark.createDataFrame(rows, "vector array<float>, name string").coalesce(1)
    archive = frames.concept_archive(spark, curated.config)
    found = [row[0] for row in frame.select(archive("vector", "name")).collect()]
    assert tuple(found[0].concepts) == tuple(_stored(curated, "archives", "concepts")[key][0])
    assert key not in found[0].neighbours
    assert found[1].neighbours[0] == key  # nobody's own image: it is its nearest
    assert [tuple(row) for row in found[2:]] == [(None,) * 4] * 3
    assert frame.select(archive("vector")).collect()[0][0].neighbours[0] == key


def test_sql_and_batches_of_bounded_size(spark, curated):
    spark.conf.set("spark.sql.execution.arrow.maxBytesPerBatch", str(1 << 30))
    spark.udf.register("embed_image", frames.embed_image(spark, curated.config))
    assert int(spark.conf.get("spark.sql.execution.arrow.maxBytesPerBatch")) == 8 << 20
    _source(spark, curated).createOrReplaceTempView("mine")
    assert spark.sql("SELECT embed_image(image) AS e FROM mine").where("e IS NOT NULL").count() == 114
    large = spark.range(60).select(sql.repeat(sql.lit("x"), 1 << 20).alias("text")).coalesce(1)

    def sizes(batches):
        yield from ({"bytes": [batch.nbytes]} for batch in batches)

    import pyarrow as pa

    found = large.mapInArrow(
        lambda batches: (pa.RecordBatch.from_pydict(row) for row in sizes(batches)), "bytes long"
    ).collect()
    assert len(found) > 5
    assert max(row.bytes for row in found) < 12 << 20


def test_mistakes_are_told(spark, curated, tmp_path):
    frame = _table(spark, curated, "image_embeddings")
    with pytest.raises(UserError, match="no column 'image' but key, embedding"):
        frames.with_embeddings(spark, curated.config, frame)
    with pytest.raises(UserError, match="has a column 'embedding' already"):
        frames.with_embeddings(spark, curated.config, frame, image="key")
    empty = dataclasses.replace(curated.config, workspace=str(tmp_path))
    with pytest.raises(UserError, match="run the job mine_concepts first"):
        frames.concept_archive(spark, empty)
    with pytest.raises(UserError, match="run the job mine_concepts first"):
        frames.find_concepts(spark, empty)
    archive = frames.concept_archive(spark, curated.config)
    short = spark.createDataFrame([([0.6, 0.8],)], "vector array<float>")
    with pytest.raises(UserError, match="dimension 2 and the index"), as_user_errors():
        short.select(archive("vector")).collect()
    with pytest.raises(UserError, match="embeddings are array<float>"), as_user_errors():
        spark.range(3).select(archive("id")).collect()


def test_the_index_is_mapped_and_not_sent(spark, curated):
    archive = frames.concept_archive(spark, curated.config)
    from pyspark import cloudpickle

    assert len(cloudpickle.dumps(archive.func)) < 20_000
    assert pq.ParquetFile(tables.read_manifest(str(curated.workspace), "archives").files[0]).metadata.num_rows
