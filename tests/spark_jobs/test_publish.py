"""Finished tables for readers that know nothing of this project: each of them, by docs/sql.md's own lines."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from spark_jobs import publish
from storage import tables, views
from storage.vectors import column_to_vectors
from tests import harness

PAGE = harness.ROOT / "docs" / "sql.md"


def _blocks(kind: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(curated, tmp_path_factory) -> Path:
    """A folder with `workspace/demo`, published by the page's command."""
    folder = tmp_path_factory.mktemp("sql")
    (folder / "workspace").mkdir()
    shutil.copytree(curated.workspace, folder / "workspace" / "demo")
    (command,) = [block for block in _blocks("") if "spark_jobs.publish" in block]
    names = command.split()[3:-2]
    assert names == ["archives", "image_embeddings"]
    assert (
        publish.main(
            [*names, "--config", str(curated.folder / "config.yaml"), f"workspace={folder}/workspace/demo"]
        )
        == 0
    )
    return folder


@pytest.fixture
def here(place, monkeypatch) -> Path:
    monkeypatch.chdir(place)
    return place / "workspace" / "demo"


@pytest.fixture(scope="module")
def expected(curated):
    return harness.table_rows(curated.workspace, "archives").to_pylist()


def test_spark_reads_a_view(spark, here, expected, capsys):
    names = {"spark": spark}
    # The JVM does not follow when Python changes its folder.
    exec(_blocks("python")[0].replace('"workspace/demo', f'"{here}'), names)
    rows = [row.asDict() for row in names["archives"].collect()]
    assert sorted(rows, key=lambda row: row["key"]) == sorted(expected, key=lambda row: row["key"])
    most = max(
        {word for row in expected for word in row["concepts"]},
        key=lambda w: sum(w in r["concepts"] for r in expected),
    )
    count = sum(most in row["concepts"] for row in expected)
    assert re.search(rf"\|\s*{count}\|", capsys.readouterr().out.splitlines()[3])


def test_duckdb_reads_a_view(here, expected, capsys):
    import duckdb

    exec(_blocks("python")[1], {})
    assert "concept" in capsys.readouterr().out
    found = duckdb.sql("SELECT * FROM 'workspace/demo/views/archives/*.parquet'").fetchall()
    assert [row[0] for row in found] == [row["key"] for row in expected]  # in order, too
    assert [list(row) for row in found] == [list(row.values()) for row in expected]


def test_pandas_reads_a_view(here, curated):
    names: dict[str, object] = {}
    exec(_blocks("python")[2], names)
    stored = harness.table_rows(curated.workspace, "image_embeddings")
    assert names["images"]["key"].tolist() == stored.column("key").to_pylist()
    np.testing.assert_array_equal(names["vectors"], column_to_vectors(stored.column("embedding")))


def test_hugging_face_datasets_reads_a_view(here, expected, tmp_path):
    """In an environment that has it: datasets needs a newer pyarrow than Petastorm admits."""
    python = os.environ.get("COCU_READERS_PYTHON") or str(harness.ROOT / ".venv-readers" / "bin" / "python")
    if not Path(python).exists():
        pytest.skip("no Python with `datasets`: make test-readers makes one, or set COCU_READERS_PYTHON")
    (block,) = _blocks("python datasets")
    script = f"{block}\nimport json\nprint(json.dumps(list(archives)))"
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [python, "-c", script], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert [row["key"] for row in rows] == [row["key"] for row in expected]
    for row, stored in zip(rows, expected, strict=True):
        assert (row["concepts"], row["in_caption"], row["named_by"]) == tuple(
            stored[name] for name in ("concepts", "in_caption", "named_by")
        )


def test_a_view_is_whole_and_stays_while_its_table_changes(here, curated, tmp_path, capsys):
    manifest = tables.read_manifest(str(here), "archives")
    folder = here / "views" / "archives"
    files = sorted(path.name for path in folder.glob("*.parquet"))
    assert len(files) == len(manifest.parts) == 6
    assert files[0].startswith("part-000000--web--")
    assert [path.name for path in (here / "views").iterdir() if path.name.startswith(".")] == []
    first = folder / files[0]
    assert first.stat().st_ino == Path(manifest.files[0]).stat().st_ino
    assert views.published(manifest) == (str(folder), False)
    Path(manifest.files[0]).unlink()
    assert first.stat().st_size > 0
    manifest.recipe = "another"
    with pytest.raises(UserError, match="names this file and it is gone"):
        views.published(manifest)
    assert sorted(path.name for path in folder.glob("*.parquet")) == files  # nothing of the failed one
    assert len(list((here / "views").iterdir())) == 2
    shutil.copy(curated.workspace / "archives" / manifest.parts[0].file, manifest.files[0])


def test_a_view_on_a_store(store, curated):
    import pyarrow.dataset as ds

    from storage.addresses import resolve
    from storage.copies import upload_folder

    upload_folder(curated.workspace / "archives", "s3a://bucket/ws/archives")
    manifest = tables.read_manifest("s3a://bucket/ws", "archives")
    assert views.published(manifest) == ("s3a://bucket/ws/views/archives", True)
    assert views.published(manifest) == ("s3a://bucket/ws/views/archives", False)
    filesystem, path = resolve("s3a://bucket/ws/views/archives")
    found = ds.dataset(path, filesystem=filesystem, format="parquet").to_table()
    assert found.equals(harness.table_rows(curated.workspace, "archives"))


def test_what_cannot_be_published_is_told(curated, tmp_path):
    options = ["--config", str(curated.folder / "config.yaml")]
    with pytest.raises(UserError, match="'index' is no table that can be published; there are pairs"):
        publish.main(["index", *options, f"workspace={tmp_path}"])
    with pytest.raises(UserError, match="holds no finished table; run ingest first"):
        publish.main([*options, f"workspace={tmp_path}"])
    with pytest.raises(UserError, match="run the job build_archives first"):
        publish.main(["archives", *options, f"workspace={tmp_path}"])
