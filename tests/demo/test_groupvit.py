"""The committed GroupViT, on scenes that neither its training nor the choice of its checkpoints has seen."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import demo
from configs.loading import load_config
from demo.samples import EVALUATION_STREAM
from demo.scene_pictures import see
from demo.segmentation import segmentation_figures
from demo.world.scenes import LABELS, make_scene
from evaluation.protocol import class_texts
from models.average import average_models
from models.groupvit import GroupViTConfig
from models.weights import load_model
from tests.harness.processes import run

WEIGHTS = Path(demo.__file__).parent / "groupvit" / "weights.pt"


@pytest.mark.slow
def test_it_is_small_and_segments_unseen_scenes_better_than_any_answer_without_looking():
    assert WEIGHTS.stat().st_size <= 8_000_000
    model, beside = load_model(WEIGHTS)
    assert sorted(beside) == ["config", "format"]
    texts, confusion = class_texts(model, LABELS), np.zeros((len(LABELS), len(LABELS)), np.int64)
    for number in range(60):
        scene = make_scene((31, EVALUATION_STREAM, number))
        guess, groups = see(model, scene.image, texts)
        np.add.at(confusion, (scene.mask, guess), 1)
        assert len(np.unique(groups)) > 1
    found = segmentation_figures(list(LABELS), confusion)
    assert found["miou"] > 18
    assert found["miou"] > 20 * found["constant_miou"]
    assert found["accuracy"] > 45


def test_the_demo_goes_on_from_it_with_its_own_model():
    train = load_config("configs/demo.yaml").train
    assert Path(train.init) == WEIGHTS.relative_to(WEIGHTS.parents[2])
    assert load_model(WEIGHTS)[0].config == GroupViTConfig.preset(train.model, **train.model_options)


@pytest.mark.slow
def test_making_it_again_goes_from_scenes_to_weights_and_their_figures(tmp_path: Path) -> None:
    """`make demo-groupvit`, small; then once more, where only the last steps are left to do."""
    workspace, out = tmp_path / "workspace", tmp_path / "groupvit"
    numbers = ["--pairs", "300", "--eval-scenes", "4", "--seed", "5", "--out", str(out)]
    shards = f"{workspace}/source/shards/*.tar"
    options = [
        f"workspace={workspace}",
        f"corpora=[{{name: demo, format: webdataset, path: {shards}}}]",
        f"report.truth={workspace}/source/truth.jsonl",
        "concepts.min_count=3",
        "train.epochs=2",
        "train.batch_size=32",
        "train.save_steps=4",
    ]
    command = [sys.executable, "-m", "demo.train_groupvit", *numbers, *options]
    done = run(command, timeout=600)
    assert "train: 2 epochs" in done.stdout
    checkpoints = sorted((workspace / "training").glob("step-*.pt"))
    assert len(checkpoints) > 2
    mean, (model, _) = average_models(checkpoints), load_model(out / "weights.pt")
    for name, value in mean.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value.half().to(value.dtype), msg=name)
    readme = (out / "README.md").read_text()
    assert "300 drawn scenes (seed 5" in readme
    assert "Measured on 4 unseen scenes" in readme
    found = re.search(r"then 2 epochs\n\((\d+) images, (\d+\.\d) hours\)", readme)
    assert found is not None
    assert 500 < int(found[1]) <= 600
    assert re.search(r"\| mIoU, all labels \| \d+\.\d \|", readme)
    before = (workspace / "training" / "last.pt").read_bytes()
    again = run(command, timeout=600)
    assert "nothing to do" in again.stdout
    assert (workspace / "training" / "last.pt").read_bytes() == before
    assert (out / "README.md").read_text() == readme
