"""Columns of the source that go along, through each format, and how they are refused."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.loading import load_config
from configs.schema import CorpusConfig
from corpora.ingest_shard import PAIRS_SCHEMA
from spark_jobs import import_embeddings
from spark_jobs.ingest import check_columns, table_job
from storage import tables
from tests.corpora.ingest_inputs import ingest, jpeg, write_tar

COLUMNS = ["url", "license", "uid"]
ROWS = {
    "a": {"url": "https://example.org/ä", "license": "CC BY", "uid": 17},
    "b": {"url": None, "uid": ["x", 1]},
    "c": {},
}
EXPECTED = {
    "a": ("https://example.org/ä", "CC BY", "17"),
    "b": (None, None, '["x", 1]'),
    "c": (None, None, None),
}


def _found(pairs) -> dict[str, tuple]:
    return {row["key"].rpartition("/")[2]: tuple(row[name] for name in COLUMNS) for row in pairs}


def _files() -> list[tuple[str, bytes]]:
    return [
        file
        for name, values in ROWS.items()
        for file in (
            (f"{name}.jpg", jpeg()),
            (f"{name}.txt", b"a small dog"),
            (f"{name}.json", json.dumps(values).encode()),
        )
    ]


def test_webdataset(tmp_path):
    write_tar(tmp_path / "0.tar", [*_files(), ("d.jpg", jpeg()), ("d.txt", b"no json"), ("e.jpg", jpeg()), ("e.txt", b"bad json"), ("e.json", b"{")])  # fmt: skip
    found = ingest(CorpusConfig("web", path=f"{tmp_path}/0.tar"), tmp_path / "out", columns=COLUMNS)
    assert _found(found.pairs) == EXPECTED | dict.fromkeys("de", (None, None, None))
    assert list(found.pairs[0]) == [*PAIRS_SCHEMA.names, *COLUMNS]


def test_files(tmp_path):
    (tmp_path / "in" / "0").mkdir(parents=True)
    for name, data in _files():
        (tmp_path / "in" / "0" / name).write_bytes(data)
    corpus = CorpusConfig("web", "files", f"{tmp_path}/in")
    assert _found(ingest(corpus, tmp_path / "out", columns=COLUMNS).pairs) == EXPECTED


def test_parquet(tmp_path):
    rows = {
        "key": list(ROWS),
        "image": pa.array([jpeg()] * 3, pa.binary()),
        "caption": ["a small dog"] * 3,
        "url": ["https://example.org/ä", None, None],
        "license": [b"CC BY", None, None],
        "uid": pa.array([17, None, None]),
    }
    pq.write_table(pa.table(rows), tmp_path / "0.parquet")
    corpus = CorpusConfig("web", "parquet", f"{tmp_path}/0.parquet")
    found = ingest(corpus, tmp_path / "out", columns=[*COLUMNS, "no_such"]).pairs
    assert _found(found) == EXPECTED | {"b": (None, None, None)}
    assert {row["no_such"] for row in found} == {None}
    url = CorpusConfig("web", "parquet", f"{tmp_path}/0.parquet", caption_column="url")
    (one,) = ingest(url, tmp_path / "again", columns=["url"]).pairs  # a caption may go along as it was, too
    assert (one["caption"], one["url"]) == ("https://example.org/ä",) * 2


def test_tables(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(jpeg())
    header = "image\tcaption\turl\tlicense\tuid\n"
    lines = "a.jpg\ta small dog\thttps://example.org/ä\tCC BY\t17\na.jpg\ta small dog\tonly\n"
    (tmp_path / "0.tsv").write_text("\ufeff" + header + lines, encoding="utf-8")
    corpus = CorpusConfig("web", "table", f"{tmp_path}/0.tsv", image_root=f"{tmp_path}/images")
    found = ingest(corpus, tmp_path / "out", columns=COLUMNS).pairs
    assert [tuple(row[name] for name in COLUMNS) for row in found] == [EXPECTED["a"], ("only", None, None)]
    (tmp_path / "1.tsv").write_text(
        lines.replace("only", "only\tx\ty"), encoding="utf-8"
    )  # no header: no names
    corpus = CorpusConfig("web", "table", f"{tmp_path}/1.tsv", image_root=f"{tmp_path}/images")
    assert {row["url"] for row in ingest(corpus, tmp_path / "more", columns=COLUMNS).pairs} == {None}


def test_without_columns_tables_stay_what_they_were(tmp_path):
    """A recipe of a table without further columns is that of before there were any."""
    write_tar(tmp_path / "0.tar", _files())
    sources = f"corpora=[{{name: web, path: {tmp_path}/0.tar}}]"
    plain = table_job(load_config(None, [f"workspace={tmp_path}", sources]))
    assert "columns" not in plain.settings["ingest"]
    assert plain.settings.keys() == {"ingest", "corpora"}
    wider = table_job(load_config(None, [f"workspace={tmp_path}", sources, "ingest.columns=[url]"]))
    assert plain.recipe != wider.recipe
    assert tables.make_recipe("ingest-1", plain.settings, plain.inputs) == plain.recipe


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["url", "caption"], "'caption' is a name that pairs or training_set have themselves"),
        (["archive_scores"], "'archive_scores' is a name that pairs"),
        (["url", "url"], "'url' is named twice"),
    ],
)
def test_names_that_are_taken(columns, message):
    with pytest.raises(UserError, match=message):
        check_columns(columns)


def test_ready_embeddings_take_none(tmp_path):
    with pytest.raises(UserError, match="do not go along with ready embeddings"):
        import_embeddings.check(load_config(None, [f"workspace={tmp_path}", "ingest.columns=[url]"]))
