"""Addresses beyond the local disk: everything goes through pyarrow file systems.

The store of these tests is a file system of pyarrow that lives in memory and stands for s3a://. Nothing of it
is on a disk, so whatever used `open()` would not find it.
"""

from __future__ import annotations

import json
import zipfile
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from pyarrow._fs import _MockFileSystem

from configs.errors import UserError
from configs.schema import ClipConfig, CocuConfig, CorpusConfig, EmbedConfig, ExportConfig, IngestConfig
from corpora.shards import list_shards
from models.clip import clip_fingerprint
from spark_jobs import import_embeddings
from spark_jobs.embed_images import embed_unit
from spark_jobs.engine.units import units_of
from spark_jobs.export_training import Forms, export_unit
from spark_jobs.ingest import check, ingest_unit
from storage import addresses, tables
from storage.addresses import is_readable, resolve
from storage.listing import look_up
from storage.patterns import expand, expand_braces
from storage.tables import Manifest
from storage.units import Part, Unit, UnitRecord
from storage.vectors import column_to_vectors
from tests import harness
from tests.corpora.ingest_inputs import ingest, jpeg, members, write_tar

GOOD = [jpeg(90 + n, 64, n) for n in range(3)]


@pytest.fixture
def store(monkeypatch):
    """Memory that s3a:// leads to; call it with an address and bytes to put a file there."""
    filesystem = _MockFileSystem()
    monkeypatch.setattr(addresses, "_s3", lambda: filesystem)

    def put(address: str, data: bytes) -> str:
        place, path = resolve(address)
        assert place is filesystem
        filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        with filesystem.open_output_stream(path, compression=None) as stream:
            stream.write(data)
        return address

    return put


def _tar(tmp_path, start=0):
    files = [m for n, image in enumerate(GOOD, start) for m in members(f"{n}", image, f"caption {n}")]
    return write_tar(tmp_path / "made.tar", files).read_bytes()


def _parquet():
    sink = BytesIO()
    pq.write_table(pa.table({"jpg": GOOD, "caption": [f"caption {n}" for n in range(3)]}), sink)
    return sink.getvalue()


def _zip():
    sink = BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for n, image in enumerate(GOOD):
            archive.writestr(f"{n}.jpg", image)
    return sink.getvalue()


def _fill(store, tmp_path, kind):
    root = "s3a://bucket/in"
    if kind == "webdataset":
        store(f"{root}/00000.tar", _tar(tmp_path))
        return CorpusConfig("c", kind, f"{root}/{{00000..00000}}.tar")
    if kind == "parquet":
        store(f"{root}/a.parquet", _parquet())
        return CorpusConfig("c", kind, f"{root}/*.parquet")
    if kind == "yfcc14m":
        store(f"{root}/zips/0.zip", _zip())
        store(
            f"{root}/t.tsv", b"file\tcaption\n" + b"".join(b"%d.jpg\tcaption %d\n" % (n, n) for n in range(3))
        )
        return CorpusConfig("c", kind, f"{root}/t.tsv", image_root=f"{root}/zips")
    for n, image in enumerate(GOOD):
        store(f"{root}/00000/{n}.jpg", image)
        store(f"{root}/00000/{n}.txt", f"caption {n}".encode())
    if kind == "files":
        return CorpusConfig("c", kind, root)
    store(
        f"{root}/t.csv",
        b"image,caption\n" + b"".join(b"00000/%d.jpg,caption %d\n" % (n, n) for n in range(3)),
    )
    return CorpusConfig("c", "table", f"{root}/t.csv", image_root=root)


@pytest.mark.parametrize("kind", ["webdataset", "parquet", "files", "table", "yfcc14m"])
def test_every_format_from_a_store(store, tmp_path, kind):
    found = ingest(_fill(store, tmp_path, kind), "s3a://bucket/workspace/pairs")
    assert [row["caption"] for row in found.pairs] == [f"caption {n}" for n in range(3)]
    assert [row["image"] for row in found.pairs] == GOOD
    assert found.rejects == []
    assert not (tmp_path / "workspace").exists()


def _manifest(workspace, table, records, recipe="recipe"):
    manifest = Manifest(table, workspace, table, recipe, {}, {}, {}, "0", "complete", records)
    tables.write_manifest(manifest)
    return tables.read_manifest(workspace, table)


def test_the_tasks_from_tar_to_training_set_on_a_store(store, tmp_path):
    workspace = "s3a://bucket/ws"
    corpus = _fill(store, tmp_path, "webdataset")
    clip = ClipConfig(*harness.write_tiny_clip(tmp_path / "clip"))
    units = [Unit(f"c/{shard.name}", 0, (shard, IngestConfig())) for shard in list_shards(corpus)]
    pairs = _manifest(workspace, "pairs", [ingest_unit(u, f"{workspace}/pairs", "recipe") for u in units])

    payload = (clip, EmbedConfig(), clip_fingerprint(clip))
    units = [Unit(u.name, u.rows, (*u.payload, *payload)) for u in units_of(pairs)]
    records = [embed_unit(u, f"{workspace}/image_embeddings", "recipe") for u in units]
    embeddings = _manifest(workspace, "image_embeddings", records)
    vectors = column_to_vectors(tables.read_parts(embeddings).column("embedding"))
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float32), axis=1), 1, atol=2e-3)

    keys = tables.read_parts(pairs, ["key"]).column("key").to_pylist()
    archives = pa.table(
        {
            "key": keys,
            "concepts": [["cat", "dog"], [], ["tree"]],
            "scores": pa.array([[2.0, 1.5], [], [1.0]], pa.list_(pa.float32())),
            "clusters": pa.array([[0, 1], [], [0]], pa.list_(pa.int16())),
        }
    )
    part = tables.part_path("recipe", pairs.parts[0].name, 0)
    rows = tables.write_part(f"{workspace}/archives", part, archives, archives.schema)
    record = UnitRecord("c/0", (Part(pairs.parts[0].name, part, rows),), rows)
    held = _manifest(workspace, "archives", [record])
    shards = f"{workspace}/training_set_webdataset"
    units = [
        Unit(u.name, u.rows, (*u.payload, "", ExportConfig(archive_length=2), 4, Forms(webdataset=shards)))
        for u in units_of(held, [pairs])
    ]
    records = [export_unit(u, f"{workspace}/training_set", "recipe") for u in units]
    training = _manifest(workspace, "training_set", records)
    exported = tables.read_parts(training).to_pylist()
    assert [row["archive_concepts"] for row in exported] == [["cat", "dog"], ["", ""], ["tree", ""]]
    assert [row["image"] for row in exported] == GOOD
    filesystem, path = resolve(shards)
    infos = filesystem.get_file_info(pafs.FileSelector(path))
    assert [info.base_name for info in infos] == ["c--00000-00000.tar"]


def test_ready_embeddings_from_a_store(store):
    vectors = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float16)
    sink = BytesIO()
    np.save(sink, vectors)
    store("s3a://bucket/emb/img_emb_0.npy", sink.getvalue())
    lines = "\n".join(json.dumps({"caption": f"a caption {n}"}) for n in range(5))
    store("s3a://bucket/emb/metadata_0.jsonl", lines.encode())
    corpus = CorpusConfig(
        "r", "embeddings", "s3a://bucket/emb/*.npy", metadata="s3a://bucket/emb/metadata_*.jsonl"
    )
    import_embeddings.check(CocuConfig(corpora=[corpus]))
    source = import_embeddings.Source(
        corpus, *expand(corpus.path), *expand(corpus.metadata), 8, IngestConfig()
    )
    pairs = import_embeddings.pairs_unit(Unit("r/00000", 0, source), "s3a://bucket/ws/pairs", "recipe")
    address = tables.join("s3a://bucket/ws/pairs", pairs.parts[0].file)
    unit = Unit(pairs.parts[0].name, 5, (source, address))
    record = import_embeddings.vectors_unit(unit, "s3a://bucket/ws/image_embeddings", "recipe")
    found = tables.read_file(tables.join("s3a://bucket/ws/image_embeddings", record.parts[0].file))
    exact = vectors.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(column_to_vectors(found.column("embedding")), exact, atol=1e-3)


def test_a_store_that_fails_is_not_taken_for_bad_data(store, tmp_path, monkeypatch):
    """The task fails, so that Spark tries it again; damaged bytes would be a reject."""
    corpus = _fill(store, tmp_path, "webdataset")
    shard = list_shards(corpus)[0]

    class Failing(pafs.PyFileSystem):
        def open_input_stream(self, path, *args, **kwargs):
            raise OSError("AWS Error NETWORK_CONNECTION: curlCode: 28, Timeout was reached")

    handler = pafs.FSSpecHandler(None)
    monkeypatch.setattr(addresses, "_s3", lambda: Failing(handler))
    assert not is_readable(shard.address)
    with pytest.raises(OSError, match="Timeout was reached"):
        ingest_unit(Unit("c/00000", 0, (shard, IngestConfig())), str(tmp_path / "out"), "recipe")


def test_file_addresses_are_local_paths(tmp_path):
    write_tar(tmp_path / "0.tar", members("0", GOOD[0], "a caption"))
    assert expand(f"file://{tmp_path}/*.tar") == [f"{tmp_path}/0.tar"]
    assert expand(f"file://localhost{tmp_path}/*.tar") == [f"{tmp_path}/0.tar"]
    corpus = CorpusConfig("c", "webdataset", f"file://{tmp_path}/0.tar")
    assert len(ingest(corpus, f"file://{tmp_path}/out").pairs) == 1


def test_relative_paths_are_made_absolute(tmp_path, monkeypatch):
    write_tar(tmp_path / "deep/0.tar", [])
    monkeypatch.chdir(tmp_path)
    assert expand("deep/*.tar") == [f"{tmp_path}/deep/0.tar"]
    assert expand("deep/0.tar") == [f"{tmp_path}/deep/0.tar"]


WRONG = {
    "ftp://host/x": "'ftp://' is not supported; use a local path, hdfs://, s3a://, gs:// or abfss://",
    "file://other/x": "write file:///path or just /path; 'other' would be another machine",
    "s3a://KEY:hunter2@bucket/x": "must hold no credentials; set them in the environment",
    "hdfs://user:hunter2@host/x": "must hold no credentials",
}


@pytest.mark.parametrize("address", WRONG)
def test_addresses_that_cannot_be(address):
    with pytest.raises(UserError) as caught:
        resolve(address)
    assert WRONG[address] in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a", ["a"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{08..11}", ["08", "09", "10", "11"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{00..10..5}", ["00", "05", "10"]),
        ("x{a,b}/{1..2}.tar", ["xa/1.tar", "xa/2.tar", "xb/1.tar", "xb/2.tar"]),
        ("{a,{1..2}}", ["a", "1", "2"]),
        ("{a,a}", ["a"]),
    ],
)
def test_braces(pattern, expected):
    assert expand_braces(pattern) == expected


def test_names_with_pattern_characters_that_exist_mean_themselves(tmp_path):
    for name in ("a[1].tar", "a1.tar"):
        write_tar(tmp_path / name, [])
    assert expand(str(tmp_path / "a[1].tar")) == [str(tmp_path / "a[1].tar")]
    assert expand(str(tmp_path / "a?.tar")) == [str(tmp_path / "a1.tar")]


def test_sizes_are_asked_in_one_go(store, tmp_path):
    (tmp_path / "b").write_bytes(b"12")
    store("s3a://bucket/a", b"123")
    store("s3a://bucket/c", b"")
    names = ["s3a://bucket/a", str(tmp_path / "b"), "s3a://bucket/a", "s3a://bucket/c", str(tmp_path)]
    assert [entry and entry.size for entry in look_up(names)] == [3, 2, 3, 0, 0]


def test_no_corpora_is_said_before_spark_starts():
    with pytest.raises(UserError, match="corpora is empty: name at least one source"):
        check(CocuConfig())
