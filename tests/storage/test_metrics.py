"""A JSON line a wave, and what `make watch` makes of the lines."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from configs.errors import UserError
from configs.schema import CocuConfig
from spark_jobs import watch
from spark_jobs.engine.unit_outcomes import outcome_of, read_outcomes
from storage.manifest import Manifest
from storage.metrics import MetricsFile, WaveMetrics, read_metrics
from storage.units import Part, Unit, UnitRecord


def _record(number: int, rows: int, **rejects: int) -> UnitRecord:
    part = Part(f"web/{number}", f"_parts/r/{number}.parquet", rows)
    return UnitRecord(f"web/{number}", (part,), rows + sum(rejects.values()), rejects)


def _manifest(workspace, table="image_embeddings") -> Manifest:
    return Manifest(table, str(workspace), "embed_images", "r", {}, {}, {}, "0")


def _run(workspace, waves, complete=False, table="image_embeddings") -> list[dict]:
    manifest = _manifest(workspace, table)
    told = WaveMetrics(str(workspace), manifest, 5)
    for records, failed in waves:
        manifest.units.extend(records)
        told.wave(records, failed, 2_000_000_000)
    if complete:
        told.complete()
    return read_metrics(str(workspace))[-1] if waves else []


WAVES = [
    ([_record(0, 20, unreadable_image=2), _record(1, 30)], 0),
    ([_record(2, 5, unreadable_image=1, out_of_gpu_memory=4)], 1),
]


def test_a_line_a_wave(tmp_path):
    one, two = _run(tmp_path, WAVES)
    assert (one["wave"], one["units_done"], one["units"], one["rows_in"], one["rows"]) == (1, 2, 5, 52, 50)
    assert (two["wave"], two["units_done"], two["rows_in"], two["rows"], two["failed_units"]) == (
        2,
        3,
        10,
        5,
        1,
    )
    assert two["rejects"] == {"out_of_gpu_memory": 4, "unreadable_image": 1}
    assert two["rate"] > 0
    assert one["time"] <= two["time"]
    assert [line["complete"] for line in _run(tmp_path, WAVES[:1], complete=True)] == [False, True]


def test_no_wave_no_file_and_a_full_disk_ends_no_run(tmp_path, capsys):
    _run(tmp_path, [], complete=True)
    assert not (tmp_path / "metrics").exists()
    assert read_metrics(str(tmp_path)) == []
    (tmp_path / "metrics").write_text("a file where the folder belongs")
    lines = MetricsFile(str(tmp_path), "pairs")
    lines.add({"table": "pairs"})
    lines.add({"table": "pairs"})
    assert capsys.readouterr().err.count("metrics are not written") == 1


def test_a_unit_tells_its_process_memory():
    line = outcome_of(Unit("web/0", 1), lambda unit: _record(0, 3), 1)
    failed = outcome_of(Unit("web/1", 1), lambda unit: 1 / 0, 1)
    wave = read_outcomes([line.encode(), failed.encode()])
    assert 50e6 < wave.memory < 500e9
    assert wave.records[0].rows_out == 3
    assert wave.failures[0].unit == "web/1"


def _at(lines, seconds) -> str:
    return (datetime.fromisoformat(lines[-1]["time"]) + timedelta(seconds=seconds)).isoformat()


def test_watching(tmp_path):
    config = CocuConfig(workspace=str(tmp_path))
    assert watch.watch_text(config, "2026-01-01T00:00:00+00:00") == f"nothing was run in {tmp_path} yet"
    lines = _run(tmp_path, WAVES)
    text = watch.watch_text(config, _at(lines, 2))
    assert "3 of 5 units, 55 rows, 7 rejected" in text
    assert "2.0 GB a worker, 1 units failed, about 0:00:00 left" in text
    assert "stopped?" not in text
    assert "no wave for 0:05:00: stopped?" in watch.watch_text(config, _at(lines, 300))
    _run(tmp_path, WAVES, complete=True)
    _run(tmp_path, WAVES[:1], table="archives")
    first, second = watch.watch_text(config, _at(lines, 300)).splitlines()
    assert first.startswith("image_embeddings")
    assert "complete since" in first
    assert second.startswith("archives")
    (tmp_path / "training").mkdir()
    epoch = {
        "time": lines[-1]["time"], "epoch": 2, "epochs": 10, "loss": 1.5, "rows": 100, "seconds": 50.0,
        "rate": 2.0, "memory": 10**9,
    }  # fmt: skip
    (tmp_path / "training" / "epochs.jsonl").write_text(json.dumps(epoch) + "\n")
    assert (
        "epoch 2 of 10, mean loss 1.5000, 2 images/s, 1.0 GB, about 0:06:40 left; 0:01:00 ago"
        in watch.watch_text(config, _at(lines, 60))
    )


def test_the_command_looks_once(tmp_path, capsys):
    _run(tmp_path, WAVES)
    assert watch.main(["--once", f"workspace={tmp_path}", "-c", "configs/demo.yaml"]) == 0
    assert "image_embeddings  3 of 5 units" in capsys.readouterr().out
    with pytest.raises(UserError, match="write options as section"):
        watch.main(["--once", "archives"])
