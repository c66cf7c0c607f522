"""The training set: fixed lengths, the right rows, read by Petastorm; and webdataset shards."""

from __future__ import annotations

import io
import itertools
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image

from configs.errors import UserError
from configs.schema import CocuConfig, ExportConfig, SparkConfig
from corpora.ingest_shard import PAIRS_SCHEMA
from spark_jobs import export_training
from spark_jobs.engine.units import units_of
from spark_jobs.export_training import Forms, export_unit, pad_lists
from storage import tables
from storage.tables import Manifest
from storage.units import Part, UnitRecord
from tests.corpora.ingest_inputs import jpeg
from tests.harness.installed import needs

ARCHIVES = pa.schema(
    [
        ("key", pa.string()),
        ("concepts", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
        ("clusters", pa.list_(pa.int16())),
    ]
)
WORDS = ["cat", "dog", "tree", "sky", "red car", "boat", "house"]
LENGTH = 4


def _pair(n):
    caption = f"A small {WORDS[n % 7]} and the {WORDS[(n + 3) % 7]}"
    return {
        "key": f"web/0/{n:03d}.x",
        "corpus": "web",
        "image": jpeg(40 + n, 32, n),
        "caption": caption,
        "width": 40 + n,
        "height": 32,
    }


def _archive(n):
    size = n % 7
    return {
        "key": f"web/0/{n:03d}.x",
        "concepts": WORDS[:size],
        "scores": [2.0 - k / 8 for k in range(size)],
        "clusters": [k // 2 for k in range(size)],
    }


def _write(workspace, table, rows, schema, size=10, recipe="r"):
    records = []
    for start in range(0, len(rows) or 1, size):
        name = f"web/0-{start // size:05d}"
        file = tables.part_path(recipe, name, 0)
        part = pa.Table.from_pylist(rows[start : start + size], schema)
        count = tables.write_part(f"{workspace}/{table}", file, part, schema)
        records.append(UnitRecord(name, (Part(name, file, count),), count))
    manifest = Manifest(table, str(workspace), "job", recipe, {}, {}, {}, "0", "complete", records)
    tables.write_manifest(manifest)
    return manifest


def _export(workspace, pairs, archives, webdataset=False):
    """All units without Spark; the rows."""
    first = _write(workspace, "pairs", pairs, PAIRS_SCHEMA)
    second = _write(workspace, "archives", archives, ARCHIVES)
    options = ExportConfig(archive_length=LENGTH, row_group_rows=4)
    shards = f"{workspace}/wds" if webdataset else ""
    files = []
    for unit in units_of(second, [first]):
        unit = type(unit)(unit.name, unit.rows, (*unit.payload, "", options, 4, Forms(webdataset=shards)))
        record = export_unit(unit, f"{workspace}/training_set", "r")
        assert record.rows_in == unit.rows
        files.extend(f"{workspace}/training_set/{part.file}" for part in record.parts)
    return files


@pytest.mark.parametrize("chunks", [[7], [3, 4], [0, 7, 0], []])
def test_lists_are_cut_and_filled(chunks):
    source = np.random.default_rng(0)
    rows = [list(range(size)) for size in source.integers(0, 9, sum(chunks))]
    cuts = [0, *itertools.accumulate(chunks)]
    parts = [pa.array(rows[a:b], pa.list_(pa.int32())) for a, b in itertools.pairwise(cuts)]
    whole = pa.array([[9], *rows, [9]], pa.list_(pa.int32())).slice(1, len(rows))  # a view with an offset
    for column in (pa.chunked_array(parts, pa.list_(pa.int32())), pa.chunked_array([whole])):
        found = pad_lists(column, 5, -1)
        assert found.type == pa.list_(pa.int32())
        assert found.to_pylist() == [(row + [-1] * 5)[:5] for row in rows]


def test_rows_are_joined_by_key_where_embedding_rejected_some(tmp_path):
    pairs = [_pair(n) for n in range(25)]
    archives = [_archive(n) for n in range(25) if n not in (0, 7, 13, 24)]
    first = _write(tmp_path, "pairs", pairs, PAIRS_SCHEMA, size=25)
    second = _write(tmp_path, "archives", archives, ARCHIVES, size=25)
    unit = units_of(second, [first])[0]
    unit = type(unit)(
        unit.name, unit.rows, (*unit.payload, "", ExportConfig(archive_length=LENGTH), 4, Forms())
    )
    record = export_unit(unit, f"{tmp_path}/training_set", "r")
    files = [f"{tmp_path}/training_set/{part.file}" for part in record.parts]
    rows = pq.read_table(files[0], partitioning=None).to_pylist()
    by_key = {pair["key"]: pair for pair in pairs}
    assert [row["key"] for row in rows] == [archive["key"] for archive in archives]
    for row, archive in zip(rows, archives, strict=True):
        assert (row["image"], row["caption"]) == (by_key[row["key"]]["image"], by_key[row["key"]]["caption"])
        ids = np.frombuffer(row["caption_tokens"], "<u2").tolist()
        assert ids == SimpleTokenizer().encode(row["caption"])
        assert row["archive_concepts"] == (archive["concepts"] + [""] * LENGTH)[:LENGTH]
        assert row["archive_scores"] == (archive["scores"] + [0.0] * LENGTH)[:LENGTH]
        assert row["archive_clusters"] == (archive["clusters"] + [-1] * LENGTH)[:LENGTH]


def test_nouns_that_are_tagged_already_are_taken_by_key(tmp_path):
    """Another order and other rows than the archives'; marked, so that their origin shows."""
    pairs = [_pair(n) for n in range(25)]
    first = _write(tmp_path, "pairs", pairs, PAIRS_SCHEMA, size=25)
    second = _write(tmp_path, "archives", [_archive(n) for n in range(3, 20)], ARCHIVES, size=25)
    schema = pa.schema({"key": pa.string(), "nouns": pa.string()})
    tagged = [{"key": pair["key"], "nouns": f"of {pair['key']}"} for pair in reversed(pairs)]
    third = _write(tmp_path, "caption_nouns", tagged, schema, size=25)
    unit = units_of(second, [first])[0]
    payload = (*unit.payload, third.files[0], ExportConfig(archive_length=LENGTH), 4, Forms())
    record = export_unit(type(unit)(unit.name, unit.rows, payload), f"{tmp_path}/training_set", "r")
    rows = pq.read_table(f"{tmp_path}/training_set/{record.parts[0].file}", partitioning=None).to_pylist()
    assert [row["caption_nouns"] for row in rows] == [f"of {row['key']}" for row in rows]
    assert len(rows) == 17


def test_nouns_of_the_caption_go_along_for_the_baseline(tmp_path):
    files = _export(tmp_path, [_pair(1)], [_archive(1)])
    (nouns,) = pq.read_table(files[0], partitioning=None).column("caption_nouns").to_pylist()
    assert {"dog", "car"} <= set(" ".join(nouns.split("\n")).split()), nouns


def test_a_part_without_rows(tmp_path):
    files = _export(tmp_path, [_pair(1)], [], webdataset=True)
    table = pq.read_table(files[0], partitioning=None)
    assert table.num_rows == 0
    assert table.schema.field("archive_concepts").type == pa.list_(pa.string())
    assert table.schema.field("archive_concepts").metadata[b"length"] == b"4"


@needs("petastorm")
def test_petastorm_reads_every_row_once(tmp_path):
    from petastorm import make_batch_reader

    count = 25
    files = _export(tmp_path, [_pair(n) for n in range(count)], [_archive(n) for n in range(count)])
    assert pq.ParquetFile(files[0]).num_row_groups == 3  # 10 rows in groups of 4
    found = {}
    with make_batch_reader([f"file://{file}" for file in files], num_epochs=1, workers_count=2) as reader:
        for batch in reader:
            assert batch.archive_concepts.shape[1:] == (LENGTH,)
            assert batch.archive_scores.shape[1:] == (LENGTH,)
            assert batch.archive_clusters.dtype == np.int32
            for row in range(len(batch.key)):
                assert batch.key[row] not in found
                found[batch.key[row]] = (
                    batch.image[row],
                    list(batch.archive_concepts[row]),
                    batch.archive_scores[row].tolist(),
                    batch.archive_clusters[row].tolist(),
                )
    assert sorted(found) == [_pair(n)["key"] for n in range(count)]
    for n in range(count):
        image, concepts, scores, clusters = found[_pair(n)["key"]]
        archive = _archive(n)
        assert Image.open(io.BytesIO(image)).size == (40 + n, 32)
        assert concepts == (archive["concepts"] + [""] * LENGTH)[:LENGTH]
        assert scores == (archive["scores"] + [0.0] * LENGTH)[:LENGTH]
        assert clusters == (archive["clusters"] + [-1] * LENGTH)[:LENGTH]


@needs("petastorm")
def test_petastorm_shares_the_row_groups_among_ranks(tmp_path):
    from petastorm import make_batch_reader

    files = _export(tmp_path, [_pair(n) for n in range(25)], [_archive(n) for n in range(25)])
    seen = []
    for rank in range(2):
        with make_batch_reader(
            [f"file://{file}" for file in files], num_epochs=1, workers_count=1, cur_shard=rank, shard_count=2
        ) as reader:
            seen.append({key for batch in reader for key in batch.key})
    assert not seen[0] & seen[1]
    assert len(seen[0] | seen[1]) == 25
    assert min(map(len, seen)) >= 8


def _shard_samples(path):
    """Samples of a webdataset shard, by webdataset's rule (the name ends at the first dot)."""
    found = {}
    with tarfile.open(path) as tar:
        for member in tar:
            stem, _, suffix = member.name.partition(".")
            found.setdefault(stem, {})[suffix] = tar.extractfile(member).read()
    return found


def test_webdataset_shards_have_the_text_in_three_parts(tmp_path):
    _export(tmp_path, [_pair(n) for n in range(12)], [_archive(n) for n in range(12)], webdataset=True)
    shards = sorted((tmp_path / "wds").iterdir())
    assert [path.name for path in shards] == ["web--0-00000.tar", "web--0-00001.tar"]
    samples = {name: parts for path in shards for name, parts in _shard_samples(path).items()}
    assert list(samples) == [f"web--0--{n:03d}_x" for n in range(12)]
    for n, parts in enumerate(samples.values()):
        assert parts["jpg"] == _pair(n)["image"]
        caption, concepts, scores = parts["txt"].decode().split("\n")
        assert caption == _pair(n)["caption"]
        assert [c for c in concepts.split(", ") if c] == _archive(n)["concepts"][:LENGTH]
        assert [float(s) for s in scores.split(", ") if s] == _archive(n)["scores"][:LENGTH]


@pytest.mark.slow
def test_the_job_replaces_shards_of_an_earlier_training_set(spark, tmp_path):
    _write(tmp_path, "pairs", [_pair(n) for n in range(25)], PAIRS_SCHEMA)
    _write(tmp_path, "archives", [_archive(n) for n in range(25)], ARCHIVES)
    options = ExportConfig(archive_length=LENGTH, webdataset=True)
    config = CocuConfig(workspace=str(tmp_path), export=options, spark=SparkConfig())
    export_training.run(spark, config)
    folder = tmp_path / "training_set_webdataset"
    assert len(list(folder.iterdir())) == 3
    _write(tmp_path, "archives", [_archive(n) for n in range(15)], ARCHIVES, recipe="another")
    with pytest.raises(UserError, match="input 'archives' is another one"):
        export_training.run(spark, config)
    config.overwrite = True
    assert export_training.run(spark, config).rows == 15
    assert sum(len(_shard_samples(path)) for path in folder.iterdir()) == 15


def test_imported_pairs_cannot_be_trained_on(tmp_path):
    manifest = _write(tmp_path, "pairs", [_pair(1)], PAIRS_SCHEMA)
    manifest.job = "import_embeddings"
    tables.write_manifest(manifest)
    _write(tmp_path, "archives", [_archive(1)], ARCHIVES)
    with pytest.raises(UserError, match="were imported as embeddings and have no images"):
        export_training.check(CocuConfig(workspace=str(tmp_path)))
