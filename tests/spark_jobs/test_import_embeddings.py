"""Ready vectors and their metadata: every row a pair with its own vector, or a reject."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.schema import CocuConfig, CorpusConfig, IngestConfig, SparkConfig
from corpora.embedding_files import paired_files
from spark_jobs import import_embeddings as job
from spark_jobs.import_embeddings import Source, check, pairs_unit, vectors_unit
from storage import tables
from storage.units import Unit
from storage.vectors import column_to_vectors

ROWS, DIMENSION = 23, 12
CAPTIONS = [f'a caption, number {n}, with "quotes" and\na second line' for n in range(ROWS)]
KEYS = [f"{n:05d}" for n in range(ROWS)]


def _vectors(seed=0, rows=ROWS, dtype=np.float16):
    return (7 * np.random.default_rng(seed).normal(size=(rows, DIMENSION))).astype(dtype)


def _write_metadata(path, captions, keys):
    columns = {"text": captions, "image_path": keys, "score": list(range(len(captions)))}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        rows = zip(*columns.values(), strict=True)
        path.write_text("\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in rows))
    else:
        table = pa.table(columns).to_pandas()
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")


def _corpus(folder, suffix, key_column="image_path"):
    return CorpusConfig(
        "ready",
        "embeddings",
        f"{folder}/img_emb_*.npy",
        caption_column="text",
        key_column=key_column,
        metadata=f"{folder}/metadata_*{suffix}",
    )


def _import(folder, corpus, rows_per_part=10, **options):
    """Every file by the tasks, without Spark: (pairs, vectors, rejects) in order."""
    check(CocuConfig(corpora=[corpus]))
    config = IngestConfig(rows_per_part=rows_per_part, **options)
    pairs, vectors, rejects = [], [], []
    for number, (npy, metadata) in enumerate(paired_files(corpus)):
        source = Source(corpus, npy, metadata, DIMENSION, config)
        record = pairs_unit(Unit(f"{corpus.name}/{number:05d}", 0, source), f"{folder}/ws/pairs", "r")
        for part in record.parts:
            address = f"{folder}/ws/pairs/{part.file}"
            found = tables.read_file(address).to_pylist()
            assert len(found) == part.rows <= rows_per_part
            pairs.extend(found)
            out = vectors_unit(Unit(part.name, part.rows, (source, address)), f"{folder}/ws/vectors", "r")
            rows = tables.read_file(f"{folder}/ws/vectors/{out.parts[0].file}")
            assert rows.column("key").to_pylist() == [row["key"] for row in found]
            vectors.append(column_to_vectors(rows.column("embedding")))
        if record.reject_file:
            rejects.extend(tables.read_file(f"{folder}/ws/pairs/{record.reject_file}").to_pylist())
        assert record.rows_in == sum(part.rows for part in record.parts) + sum(record.rejects.values())
    return pairs, np.concatenate(vectors) if vectors else np.zeros((0, DIMENSION)), rejects


def _unit_length(vectors):
    exact = vectors.astype(np.float64)
    return exact / np.linalg.norm(exact, axis=1, keepdims=True)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv", ".tsv"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_row_comes_with_its_vector(tmp_path, suffix, dtype):
    for part in range(2):
        np.save(tmp_path / f"img_emb_{part}.npy", _vectors(part, dtype=dtype))
        _write_metadata(tmp_path / f"metadata_{part}{suffix}", CAPTIONS, KEYS)
    pairs, vectors, rejects = _import(tmp_path, _corpus(tmp_path, suffix))
    assert rejects == []
    assert [row["caption"] for row in pairs] == [c.replace("\n", " ") for c in CAPTIONS] * 2
    assert [row["key"] for row in pairs] == [
        f"ready/{p:05d}/{n:05d}@{n}" for p in range(2) for n in range(ROWS)
    ]
    exact = np.concatenate([_unit_length(_vectors(part, dtype=dtype)) for part in range(2)])
    np.testing.assert_allclose(vectors, exact, atol=6e-4)
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-3)


def test_rows_without_a_key_column_are_named_by_their_number(tmp_path):
    np.save(tmp_path / "img_emb_0.npy", _vectors())
    _write_metadata(tmp_path / "metadata_0.parquet", CAPTIONS, KEYS)
    pairs, _, _ = _import(tmp_path, _corpus(tmp_path, ".parquet", key_column=""))
    assert [row["key"] for row in pairs] == [f"ready/00000/row@{n}" for n in range(ROWS)]


def test_what_cannot_be_used_is_rejected_with_its_reason(tmp_path):
    vectors, captions, keys = _vectors(), list(CAPTIONS), list(KEYS)
    vectors[3, 4], vectors[5, 0], vectors[7] = np.nan, np.inf, 0
    captions[1], captions[2] = None, "x"
    keys[9], keys[10], keys[11], keys[12] = keys[8], None, None, "odd/../na me"
    np.save(tmp_path / "img_emb_0.npy", vectors)
    _write_metadata(tmp_path / "metadata_0.parquet", captions, keys)
    pairs, stored, rejects = _import(tmp_path, _corpus(tmp_path, ".parquet"))
    found = {int(row["sample"].rpartition("@")[2]): row["reason"] for row in rejects}
    assert found == {
        1: "missing_caption",
        2: "short_caption",
        3: "embedding_not_finite",
        5: "embedding_not_finite",
        7: "embedding_not_finite",
        9: "duplicate_key",
    }
    kept = [n for n in range(ROWS) if n not in found]
    assert [int(row["key"].rpartition("@")[2]) for row in pairs] == kept
    assert all(row["key"].count("/") == 2 for row in pairs)
    np.testing.assert_allclose(stored, _unit_length(vectors[kept]), atol=6e-4)


def test_large_numbers_do_not_overflow(tmp_path):
    vectors = _vectors(dtype=np.float32) * np.float32(1e30)
    np.save(tmp_path / "img_emb_0.npy", vectors)
    _write_metadata(tmp_path / "metadata_0.parquet", CAPTIONS, KEYS)
    _, stored, rejects = _import(tmp_path, _corpus(tmp_path, ".parquet"))
    assert rejects == []
    np.testing.assert_allclose(stored, _unit_length(vectors), atol=6e-4)


def _good_files(folder):
    np.save(folder / "img_emb_0.npy", _vectors())
    _write_metadata(folder / "metadata_0.parquet", CAPTIONS, KEYS)


def _spoil(folder, what):
    """Spoil one thing; the corpus."""
    corpus = _corpus(folder, ".parquet")
    npy = folder / "img_emb_0.npy"
    if what == "pickle":
        np.save(npy, np.array([{"code": 1}], dtype=object), allow_pickle=True)
    elif what == "integers":
        np.save(npy, np.ones((ROWS, 4), np.int64))
    elif what == "one dimension":
        np.save(npy, np.ones(ROWS, np.float32))
    elif what == "column order":
        np.save(npy, np.asfortranarray(_vectors()))
    elif what == "no npy":
        npy.write_bytes(b"<html>no such file</html>")
    elif what == "counts":
        np.save(folder / "img_emb_1.npy", _vectors())
    elif what == "column":
        corpus.caption_column = "caption"
    elif what == "key":
        corpus.key_column = "id"
    elif what == "no metadata":
        corpus.metadata = ""
    elif what == "kind":
        (folder / "metadata_0.pkl").write_bytes(b"x")
        corpus.metadata = f"{folder}/metadata_0.pkl"
    elif what == "damaged":
        (folder / "metadata_0.parquet").write_bytes(b"PAR1 no more")
    return corpus


SPOILT = {
    "pickle": "img_emb_0.npy: holds object of shape",
    "integers": "holds int64 of shape \\(23, 4\\); expected float16 or float32 of shape \\(n, d\\)",
    "one dimension": "holds float32 of shape \\(23,\\)",
    "column order": "in column order; expected",
    "no npy": "img_emb_0.npy: not a .npy file",
    "counts": "2 .npy files .* and 1 metadata files",
    "column": "caption_column=caption is not in .*metadata_0.parquet; columns: text, image_path, score",
    "key": "key_column=id is not in",
    "no metadata": "metadata is missing, the files with the captions",
    "kind": "metadata must be .parquet, .jsonl, .csv or .tsv",
    "damaged": "metadata_0.parquet: cannot be read",
}


@pytest.mark.parametrize("what", SPOILT)
def test_mistakes_are_found_before_spark_starts(tmp_path, what):
    _good_files(tmp_path)
    with pytest.raises(UserError, match=SPOILT[what]) as caught:
        check(CocuConfig(corpora=[_spoil(tmp_path, what)]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: np.save(folder / "img_emb_0.npy", _vectors(rows=5)), "has 5 rows, .* has 23"),
        (
            lambda folder: np.save(folder / "img_emb_0.npy", np.ones((ROWS, 3), np.float16)),
            "have 3 numbers, those of the first file 12",
        ),
        (
            lambda folder: (folder / "img_emb_0.npy").write_bytes(
                (folder / "img_emb_0.npy").read_bytes()[:-9]
            ),
            "the file is cut off; it should hold 23 rows",
        ),
    ],
    ids=["rows", "dimension", "cut"],
)
def test_files_that_do_not_go_together(tmp_path, change, message):
    _good_files(tmp_path)
    change(tmp_path)
    with pytest.raises(UserError, match=message):
        _import(tmp_path, _corpus(tmp_path, ".parquet"))


def test_vectors_and_pictures_do_not_mix(tmp_path):
    corpora = [_corpus(tmp_path, ".parquet"), CorpusConfig("web", "webdataset", "x.tar")]
    with pytest.raises(UserError, match="need a workspace of their own; here are also web"):
        check(CocuConfig(corpora=corpora))


@pytest.mark.slow
def test_the_job_on_spark(spark, tmp_path, capsys):
    for part in range(3):
        np.save(tmp_path / f"img_emb_{part}.npy", _vectors(part))
        _write_metadata(tmp_path / f"metadata_{part}.jsonl", CAPTIONS, KEYS)
    corpus = _corpus(tmp_path, ".jsonl")
    config = CocuConfig(
        workspace=str(tmp_path / "ws"),
        corpora=[corpus],
        ingest=IngestConfig(rows_per_part=10),
        spark=SparkConfig(),
    )
    manifest = job.run(spark, config)
    assert manifest.rows == 3 * ROWS
    rows = tables.read_parts(manifest)
    exact = np.concatenate([_unit_length(_vectors(part)) for part in range(3)])
    np.testing.assert_allclose(column_to_vectors(rows.column("embedding")), exact, atol=6e-4)
    keys = tables.read_parts(tables.read_manifest(config.workspace, "pairs"), ["key"]).column("key")
    assert rows.column("key").equals(keys)
    capsys.readouterr()
    job.run(spark, config)
    assert capsys.readouterr().out.count("nothing to do") == 2


def test_captions_stay_with_their_vectors_when_one_side_pads_its_numbers(tmp_path):
    for n in range(11):
        np.save(tmp_path / f"img_emb_{n}.npy", _vectors(n))
        _write_metadata(tmp_path / f"metadata_{n:02d}.parquet", [f"a dog of file {n}"] * ROWS, KEYS)
    pairs, vectors, rejects = _import(tmp_path, _corpus(tmp_path, ".parquet"))
    assert rejects == []
    assert [row["caption"] for row in pairs] == [f"a dog of file {n}" for n in range(11) for _ in range(ROWS)]
    exact = np.concatenate([_unit_length(_vectors(n)) for n in range(11)])
    np.testing.assert_allclose(vectors, exact, atol=6e-4)
