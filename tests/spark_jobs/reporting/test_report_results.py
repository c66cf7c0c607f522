"""Training's and evaluation's files as the report reads them, whole, half written and wrong."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from spark_jobs.reporting.results import load_evaluation, load_training


@pytest.fixture
def workspace(tmp_path):
    for folder in ("training", "evaluation"):
        (tmp_path / folder / "pictures").mkdir(parents=True)
    return tmp_path


def _png(side: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def test_nothing_there_is_nothing_to_show(tmp_path, workspace):
    assert load_training(str(workspace)) is None
    assert load_evaluation(str(workspace)) is None
    assert load_training(str(tmp_path / "elsewhere")) is None


def test_a_run_that_is_going_on(workspace):
    rows = [{"step": 10 * n, "loss": 5.0 - n, "lr": 0.1, "images_per_second": 7} for n in range(4)]
    rows[2]["loss"] = float("nan")  # Python writes NaN though JSON has none
    lines = [json.dumps(row) for row in rows]
    (workspace / "training" / "history.jsonl").write_text("\n".join([*lines, "[1]", '{"step": 40, "lo']))
    found = load_training(str(workspace))
    assert found.losses == {"loss": [(0, 5.0), (10, 4.0), (30, 2.0)]}
    assert list(found.curves) == ["images_per_second", "lr"]
    assert found.facts == {}
    assert found.pictures == []


def test_long_histories_are_averaged(workspace):
    with (workspace / "training" / "history.jsonl").open("w") as file:
        file.writelines(json.dumps({"step": n, "loss": n % 2}) + "\n" for n in range(30_000))
    (curve,) = load_training(str(workspace)).losses.values()
    assert len(curve) == 300
    assert all(value == 0.5 for _, value in curve)
    assert curve[0][0] == 49.5


def test_facts_are_single_values(workspace):
    summary = {"steps": 9, "ok": True, "config": {"lr": 0.5}, "list": [1], "text": "x" * 81, "none": None}
    (workspace / "training" / "summary.json").write_text(json.dumps(summary))
    assert load_training(str(workspace)).facts == {"steps": 9, "ok": True, "config.lr": 0.5}


def test_the_first_and_last_picture_of_a_training_and_only_pictures(workspace):
    folder = workspace / "training" / "pictures"
    for number in range(20):
        (folder / f"step-{number:06d}.png").write_bytes(_png())
    (folder / "step-000099.png").write_bytes(b"<svg onload=alert(1)>")
    (folder / "step-000098.txt").write_text("no")
    found = load_training(str(workspace))
    assert [name for name, _ in found.pictures] == ["step-000000", "step-000019"]
    assert found.pictures[0][1] == _png()


def test_results_of_an_evaluation(workspace):
    voc = {"name": "voc", "title": "PASCAL VOC", "miou": 40.0, "pixel_accuracy": 71, "images": 9}
    voc["classes"] = {"cat": 10.0, "dog": 30.0, "cow": None}
    entries = [voc, {"miou": "high", "classes": []}, "no entry"]
    (workspace / "evaluation" / "results.json").write_text(
        json.dumps({"benchmarks": entries, "checkpoint": None})
    )
    first, second = load_evaluation(str(workspace)).benchmarks
    assert (first.name, first.miou, first.pixel_accuracy, first.images) == ("PASCAL VOC", 40.0, 71.0, 9)
    assert first.classes == [("dog", 30.0), ("cat", 10.0), ("cow", None)]
    assert (second.name, second.miou, second.classes) == ("unnamed", None, [])


@pytest.mark.parametrize("content", ["", "[]", '{"benchmarks": {}}', "{"])
def test_results_of_another_form_are_left_out(workspace, content):
    (workspace / "evaluation" / "results.json").write_text(content)
    assert load_evaluation(str(workspace)) is None
