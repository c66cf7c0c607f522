"""Folders to write into are tried before the work, by every command that writes; what is wrong is one line."""

import json
from pathlib import Path

import pytest
from PIL import Image

from configs.errors import UserError
from configs.output_folder import make_output_folder
from evaluation import classify, evaluate
from evaluation.segment.__main__ import main as segment
from evaluation.semantic_gap.__main__ import main as semantic_gap
from tests.evaluation.benchmarks.layouts import make_layout, tiny_weights
from training.telemetry import Telemetry

READ_ONLY = "/proc"  # whoever runs the tests, also root


def test_folders_are_made_and_left_empty(tmp_path):
    folder = make_output_folder(tmp_path / "a" / "b", "--out")
    assert make_output_folder(str(folder), "--out") == folder
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    root = tmp_path_factory.mktemp("commands")
    weights = str(tiny_weights(root / "w.pt"))
    photo, masks = make_layout(root, "voc")[0][0], root / "VOCdevkit/VOC2012/SegmentationClass"
    (root / "folders" / "dog").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / "folders" / "dog" / "a.png")
    classes = root / "classes.json"
    classes.write_text(json.dumps(["background", *(f"class {number}" for number in range(1, 21))]))
    return {
        "evaluate": lambda out: evaluate.main(
            ["--checkpoint", weights, "--benchmark", "voc", "--partial", "--data", str(root), "--out", out]
        ),
        "segment": lambda out: segment(
            ["--checkpoint", weights, "--classes", "dog, cat", str(photo), "--out", out]
        ),
        "classify": lambda out: classify.main(
            ["--checkpoint", weights, "--data", str(root / "folders"), "--out", out]
        ),
        "semantic_gap": lambda out: semantic_gap(
            ["--truth", str(masks), "--classes", str(classes), "--out", out]
        ),
        "train": lambda out: Telemetry(Path(out), 1),
    }


@pytest.mark.parametrize("command", ["evaluate", "segment", "classify", "semantic_gap", "train"])
def test_a_place_that_cannot_be_written_is_one_line_in_every_command(tmp_path, commands, command):
    (tmp_path / "taken").write_text("a file")
    option = "train.output" if command == "train" else "--out"
    for place, reason in (
        (tmp_path / "taken", "a file stands there"),
        (tmp_path / "taken" / "below", "a file stands there"),
        (READ_ONLY, "No such file or directory|Permission denied|Read-only"),
    ):
        with pytest.raises(UserError, match=f"^{option} {place}: nothing can be written there .({reason})"):
            commands[command](str(place))
    assert (tmp_path / "taken").read_text() == "a file"
