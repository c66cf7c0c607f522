from __future__ import annotations

import os

import pyarrow as pa
import pytest

from configs.errors import UserError
from corpora.ingest_shard import PAIRS_SCHEMA
from storage import tables
from storage.addresses import resolve

ROWS = 400


def _pairs(rows: int) -> pa.Table:
    columns = {
        "key": [f"web/00000/{n:09d}" for n in range(rows)],
        "corpus": ["web"] * rows,
        "image": [os.urandom(8000) for _ in range(rows)],
        "caption": [f"{os.urandom(20).hex()} a caption of number {n}" for n in range(rows)],
        "width": [256] * rows,
        "height": [256] * rows,
    }
    return pa.table(columns, schema=PAIRS_SCHEMA)


def test_key_and_image_of_a_part_are_a_few_requests(store):
    """Ten row groups; without buffering there is a request for each column of each of them."""
    pairs = _pairs(ROWS)
    tables.write_part("s3a://bucket/ws/pairs", "_parts/r/0.parquet", pairs, PAIRS_SCHEMA, row_group_rows=40)
    before = store.count("GET", "0.parquet")
    found = tables.read_file("s3a://bucket/ws/pairs/_parts/r/0.parquet", ["key", "image"])
    assert found.equals(pairs.select(["key", "image"]))
    assert store.count("GET", "0.parquet") - before <= 3


def test_writing_a_part_makes_no_folders_on_a_store(store):
    rows = pa.table({"key": ["a"]})
    before = len(store.requests)
    tables.write_part("s3a://bucket/ws/pairs", "_parts/r/corpus=web/0.parquet", rows, rows.schema)
    assert [request.method for request in store.requests[before:]] == ["POST", "PUT", "POST"]


def test_a_cut_part_on_a_store_is_named(store):
    rows = _pairs(40)
    tables.write_part("s3a://bucket/ws/pairs", "whole.parquet", rows, PAIRS_SCHEMA)
    filesystem, path = resolve("s3a://bucket/ws/pairs/whole.parquet")
    with filesystem.open_input_stream(path) as stream:
        data = stream.read()
    with filesystem.open_output_stream(path.replace("whole", "cut")) as stream:
        stream.write(data[:-100])
    with pytest.raises(UserError, match="cut.parquet: not a whole Parquet file"):
        tables.read_file("s3a://bucket/ws/pairs/cut.parquet")
    with pytest.raises(UserError, match="gone.parquet: the manifest names this file and it is gone"):
        tables.read_file("s3a://bucket/ws/pairs/gone.parquet")
