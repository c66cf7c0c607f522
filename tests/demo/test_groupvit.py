"""The committed GroupViT, on scenes that neither its training nor the choice of its checkpoints has seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import demo
from configs.loading import load_config
from demo.samples import EVALUATION_STREAM
from demo.scene_pictures import see
from demo.segmentation import segmentation_figures
from demo.world.scenes import LABELS, make_scene
from evaluation.protocol import class_texts
from models.groupvit import GroupViTConfig
from models.weights import load_model

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
    assert found["miou"] > 12
    assert found["miou"] > 10 * found["constant_miou"]
    assert found["accuracy"] > 40


def test_the_demo_goes_on_from_it_with_its_own_model():
    train = load_config("configs/demo.yaml").train
    assert Path(train.init) == WEIGHTS.relative_to(WEIGHTS.parents[2])
    assert load_model(WEIGHTS)[0].config == GroupViTConfig.preset(train.model, **train.model_options)
