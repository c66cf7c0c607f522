from __future__ import annotations

import json
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from configs.errors import UserError
from storage import progress, tables
from storage.addresses import resolve
from storage.manifest import Manifest
from storage.units import Part, UnitRecord


def _manifest(workspace: Path | str) -> Manifest:
    return Manifest("pairs", str(workspace), "ingest", "r1", {"a": 1}, {"shards": "x"}, {}, "0")


def _units(first: int, count: int) -> list[UnitRecord]:
    return [
        UnitRecord(
            f"web/{n:05d}",
            (Part(f"web/{n:05d}", f"_parts/r1/{n}.parquet", n),),
            n + 1,
            {"unreadable image": 1},
        )
        for n in range(first, first + count)
    ]


def test_waves_of_several_runs_are_read_back_in_their_order(tmp_path):
    manifest = _manifest(tmp_path)
    tables.commit_wave(manifest, "first", _units(0, 3))
    tables.commit_wave(manifest, "first", _units(3, 2))
    again = tables.read_progress(str(tmp_path), "pairs", "r1")
    assert again is not None
    tables.commit_wave(again, "second", _units(5, 4))
    found = tables.read_progress(str(tmp_path), "pairs", "r1")
    assert found is not None
    assert found.units == _units(0, 9)
    assert found.settings == {"a": 1}
    assert tables.read_progress(str(tmp_path), "pairs", "r2") is None


def test_a_wave_that_was_cut_off_before_its_commit_does_not_count(tmp_path):
    manifest = _manifest(tmp_path)
    tables.commit_wave(manifest, "run", _units(0, 2))
    folder = tmp_path / "pairs" / "_progress-r1"
    (folder / "run-000001.json").write_text('[{"unit": "web/000')
    found = tables.read_progress(str(tmp_path), "pairs", "r1")
    assert found is not None
    assert found.units == _units(0, 2)
    tables.commit_wave(found, "next", _units(2, 2))
    found = tables.read_progress(str(tmp_path), "pairs", "r1")
    assert found is not None
    assert found.units == _units(0, 4)


@pytest.mark.parametrize("damage", ["gone", "cut", "outside"])
def test_a_committed_wave_that_is_damaged_is_named(tmp_path, damage):
    tables.commit_wave(_manifest(tmp_path), "run", _units(0, 2))
    wave = tmp_path / "pairs" / "_progress-r1" / "run-000000.json"
    if damage == "gone":
        wave.unlink()
    elif damage == "cut":
        wave.write_bytes(wave.read_bytes()[:-9])
    else:
        wave.write_text(wave.read_text().replace("_parts/r1/1", "_parts/../../secret"))
    with pytest.raises(
        UserError, match="run-000000.json: not a manifest of this software .*delete the folder"
    ):
        tables.read_progress(str(tmp_path), "pairs", "r1")


def test_progress_as_one_file_of_older_runs_is_read_too(tmp_path):
    (tmp_path / "pairs").mkdir()
    units = [{**vars(unit), "parts": [vars(part) for part in unit.parts]} for unit in _units(0, 2)]
    values = {**vars(_manifest(tmp_path)), "format": "cocu-table-1", "units": units}
    for name in ("workspace", "waves"):
        del values[name]
    (tmp_path / "pairs" / "_progress-r1.json").write_text(json.dumps(values, default=str))
    found = tables.read_progress(str(tmp_path), "pairs", "r1")
    assert found is not None
    assert found.units == _units(0, 2)
    tables.commit_wave(found, "run", _units(2, 1))
    found = tables.read_progress(str(tmp_path), "pairs", "r1")
    assert found is not None
    assert found.units == _units(0, 3)


def test_a_commit_writes_no_more_for_the_last_wave_than_for_the_first(tmp_path):
    manifest = _manifest(tmp_path)
    folder = tmp_path / "pairs"
    written = []
    for number in range(60):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
        tables.commit_wave(manifest, "run", _units(10_000 + 64 * number, 64))
        changed = [path for path in folder.rglob("*.json") if before.get(path) != path.stat().st_mtime_ns]
        assert len(changed) == 2
        written.append(sum(path.stat().st_size for path in changed))
    assert max(written[1:]) <= written[0] + 64


def test_a_commit_is_six_requests_whatever_the_table_holds(store):
    manifest = _manifest("s3a://bucket/ws")
    counts = []
    for number in range(8):
        before = len(store.requests)
        tables.commit_wave(manifest, "run", _units(64 * number, 64))
        counts.append(len(store.requests) - before)
    assert counts == [6] * 8  # two files of create, one part, complete
    found = tables.read_progress("s3a://bucket/ws", "pairs", "r1")
    assert found is not None
    assert found.units == _units(0, 512)
    tables.remove_progress(found)
    assert tables.read_progress("s3a://bucket/ws", "pairs", "r1") is None


def test_the_state_of_building_goes_with_completion(tmp_path):
    manifest = _manifest(tmp_path)
    tables.commit_wave(manifest, "run", _units(0, 2))
    manifest.status = "complete"
    tables.write_manifest(manifest)
    tables.remove_progress(manifest)
    assert [path.name for path in (tmp_path / "pairs").iterdir()] == ["_manifest.json"]
    assert tables.read_manifest(str(tmp_path), "pairs").units == _units(0, 2)


def test_who_reads_while_the_state_of_building_goes_sees_no_damage(tmp_path, monkeypatch):
    """Reads after each removal: what is left is always progress, or none."""
    manifest = _manifest(tmp_path)
    tables.commit_wave(manifest, "run", _units(0, 2))
    tables.commit_wave(manifest, "run", _units(2, 2))
    seen = []

    class Watched(pafs.LocalFileSystem):
        def delete_file(self, path):
            super().delete_file(path)
            look()

        def delete_dir(self, path):
            super().delete_dir(path)
            look()

    def look():
        found = tables.read_progress(str(tmp_path), manifest.table, manifest.recipe)
        seen.append(None if found is None else len(found.units))

    monkeypatch.setattr(progress, "resolve", lambda address: (Watched(), resolve(address)[1]))
    tables.remove_progress(manifest)
    assert seen == [None, None]
