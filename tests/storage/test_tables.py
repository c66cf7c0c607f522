from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from storage import tables
from storage.small_files import write_atomically
from storage.tables import Manifest
from storage.units import Part, UnitRecord

SCHEMA = pa.schema([("key", pa.string()), ("image", pa.binary())])


def _manifest(workspace: Path, **changes) -> Manifest:
    values = {
        "table": "pairs",
        "workspace": str(workspace),
        "job": "ingest",
        "recipe": "r1",
        "settings": {"ingest": {"short_side": 256, "jpeg_quality": 95}},
        "inputs": {"shards": "abc"},
        "config": {},
        "version": "0",
    }
    return Manifest(**{**values, **changes})


def _write(workspace: Path, name: str, keys: list[str], attempt: int = 0, recipe: str = "r1") -> Part:
    file = tables.part_path(recipe, name, attempt)
    rows = pa.table({"key": keys, "image": [b"x"] * len(keys)}, schema=SCHEMA)
    return Part(name, file, tables.write_part(str(workspace / "pairs"), file, rows, SCHEMA))


def test_a_table_is_seen_whole_or_not_at_all(tmp_path):
    manifest = _manifest(tmp_path)
    first = _write(tmp_path, "demo/00000-00000", ["a", "b"])
    tables.commit_wave(
        manifest, "run", [UnitRecord("demo/00000", (first,), rows_in=3, rejects={"unreadable image": 1})]
    )
    with pytest.raises(UserError, match=r"table 'pairs' is not in .* begun and not finished.*ingest"):
        tables.read_manifest(str(tmp_path), "pairs")
    again = tables.read_progress(str(tmp_path), "pairs", "r1")
    assert again is not None
    assert again.units == manifest.units

    manifest.status = "complete"
    tables.write_manifest(manifest)
    tables.remove_progress(manifest)
    whole = tables.read_manifest(str(tmp_path), "pairs")
    assert (whole.rows_in, whole.rows, whole.rejects) == (3, 2, {"unreadable image": 1})
    assert tables.read_parts(whole).column("key").to_pylist() == ["a", "b"]
    assert sorted(os.listdir(tmp_path / "pairs")) == ["_manifest.json", "_parts"]


def test_orphans_of_other_attempts_and_recipes_are_removed(tmp_path):
    kept = _write(tmp_path, "demo/00000-00000", ["a"], attempt=1)
    _write(tmp_path, "demo/00000-00000", ["a"], attempt=2)
    _write(tmp_path, "demo/00000-00000", ["z"], attempt=1, recipe="r0")
    # What a task left that was killed while it wrote.
    half = tmp_path / "pairs" / tables.part_path("r1", "demo/00000-00000", 3)
    half.write_bytes((tmp_path / "pairs" / kept.file).read_bytes()[:40])
    manifest = _manifest(tmp_path, units=[UnitRecord("demo/00000", (kept,), 1)], status="complete")
    tables.write_manifest(manifest)
    assert tables.read_parts(tables.read_manifest(str(tmp_path), "pairs")).column("key").to_pylist() == ["a"]
    assert tables.delete_orphans(manifest) == 3
    left = list((tmp_path / "pairs").rglob("*.parquet"))
    assert [str(path) for path in left] == manifest.files


def test_part_names_keep_inside_the_table():
    path = tables.part_path("r", "cc3m/../../etc/passwd-00000", 7)
    assert path == "_parts/r/corpus=cc3m/..--..--etc--passwd-00000.7.parquet"


def test_recipe_depends_on_settings_and_inputs_and_not_on_their_order():
    one = tables.make_recipe("ingest", {"a": 1, "b": 2}, {"x": "1"})
    assert one == tables.make_recipe("ingest", {"b": 2, "a": 1}, {"x": "1"})
    others = [
        ("ingest", {"a": 1, "b": 3}, {"x": "1"}),
        ("ingest", {"a": 1, "b": 2}, {"x": "2"}),
        ("embed", {"a": 1, "b": 2}, {"x": "1"}),
    ]
    assert len({one, *(tables.make_recipe(*other) for other in others)}) == 4


def test_differences_name_the_key(tmp_path):
    text = tables.recipe_differences(
        _manifest(tmp_path), {"ingest": {"short_side": 224, "jpeg_quality": 95}}, {"shards": "abc"}
    )
    assert text == "ingest.short_side was 256 and is now 224"
    assert "input 'shards' is another one" in tables.recipe_differences(
        _manifest(tmp_path), _manifest(tmp_path).settings, {"shards": "x"}
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"format": "other"}', b"\x80\x04\x95pickle"],
    ids=["empty", "cut", "list", "format", "pickle"],
)
def test_damaged_manifests_are_refused(tmp_path, content):
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "_manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"_manifest\.json: not a manifest.*run its job again"):
        tables.read_manifest(str(tmp_path), "pairs")


def test_a_manifest_cannot_point_out_of_its_table(tmp_path):
    manifest = _manifest(
        tmp_path, status="complete", units=[UnitRecord("u", (Part("u", "_parts/../../secret", 1),), 1)]
    )
    tables.write_manifest(manifest)
    with pytest.raises(UserError, match="leads out of table"):
        tables.read_manifest(str(tmp_path), "pairs")


def test_a_writer_that_fails_leaves_no_file(tmp_path):
    def rows():
        yield pa.table({"key": ["a"], "image": [b"x"]}, schema=SCHEMA)
        raise ValueError("the input broke")

    with pytest.raises(ValueError, match="the input broke"):
        tables.write_part(str(tmp_path), "_parts/r/corpus=c/a.0.parquet", rows(), SCHEMA)
    assert list(tmp_path.rglob("*parquet*")) == []


def test_truncated_parts_are_named(tmp_path):
    part = _write(tmp_path, "demo/0-0", ["a"] * 100)
    file = tmp_path / "pairs" / part.file
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(UserError, match="not a whole Parquet file"):
        tables.read_parts(_manifest(tmp_path, units=[UnitRecord("u", (part,), 100)]))


def test_replacing_a_small_file_never_shows_half_of_it(tmp_path):
    """A reader in another process polls while the file is replaced a few hundred times."""
    target = tmp_path / "state.json"
    write_atomically(str(target), json.dumps({"n": 0, "pad": "x" * 20_000}).encode())
    reader = (
        "import json,sys,time\n"
        "seen=set(); end=time.time()+20\n"
        "while time.time()<end:\n"
        "    n=json.load(open(sys.argv[1]))['n']; seen.add(n)\n"
        "    if n==300: break\n"
        "print(len(seen))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", reader, str(target)], stdout=subprocess.PIPE, text=True)
    for number in range(1, 301):
        write_atomically(str(target), json.dumps({"n": number, "pad": "x" * 20_000}).encode())
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert int(out) >= 1
    assert os.listdir(tmp_path) == ["state.json"]


def test_columns_are_compressed_where_it_pays(tmp_path):
    part = _write(tmp_path, "demo/0-0", ["key"] * 10)
    columns = pq.ParquetFile(tmp_path / "pairs" / part.file).metadata.row_group(0)
    by_name = {
        columns.column(number).path_in_schema: columns.column(number).compression for number in range(2)
    }
    assert by_name == {"key": "ZSTD", "image": "UNCOMPRESSED"}
