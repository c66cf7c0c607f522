"""The demo's figures against counting pixel by pixel, and its picture against the evaluation's own answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demo.scene_pictures import see, write_pictures
from demo.segmentation import evaluate_command, read_segmentation, segmentation_figures
from demo.voc import CLASSES, prepare_folders, write_scenes
from demo.world.scenes import GROUND_LABELS, LABELS, THINGS
from evaluation.protocol import class_texts
from models.groupvit import GroupViT, GroupViTConfig
from models.weights import load_model, save_model


def naive_miou(truth: np.ndarray, guess: np.ndarray, numbers: list[int]) -> float:
    found = []
    for number in numbers:
        either = ((truth == number) | (guess == number)).sum()
        if either:
            found.append(((truth == number) & (guess == number)).sum() / either)
    return 100 * float(np.mean(found))


def counted(truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    confusion = np.zeros((len(LABELS), len(LABELS)), np.int64)
    np.add.at(confusion, (truth, guess), 1)
    return confusion


def test_figures_are_those_of_counting_pixels():
    random = np.random.default_rng(0)
    shown = [LABELS.index(name) for name in ("dog", "sky", "grass", "ball", "sunset")]
    truth = random.choice(shown, 4000, p=[0.1, 0.4, 0.3, 0.05, 0.15])
    guess = np.where(random.random(4000) < 0.5, truth, random.choice([*shown, LABELS.index("cat")], 4000))
    found = segmentation_figures(list(LABELS), counted(truth, guess))
    things, grounds = range(len(THINGS)), range(len(THINGS), len(LABELS))
    assert found["miou"] == pytest.approx(naive_miou(truth, guess, [*range(len(LABELS))]), abs=0.006)
    assert found["miou_things"] == pytest.approx(naive_miou(truth, guess, [*things]), abs=0.006)
    assert found["miou_grounds"] == pytest.approx(naive_miou(truth, guess, [*grounds]), abs=0.006)
    assert found["accuracy"] == pytest.approx(100 * (truth == guess).mean(), abs=0.006)
    assert tuple(LABELS[len(THINGS) :]) == GROUND_LABELS


def test_answers_that_look_at_nothing_score_what_they_would():
    random = np.random.default_rng(1)
    truth = random.choice(len(LABELS), 200_000, p=random.dirichlet(np.ones(len(LABELS))))
    found = segmentation_figures(list(LABELS), counted(truth, truth))
    constants = [naive_miou(truth, np.full_like(truth, n), [*range(len(LABELS))]) for n in range(len(LABELS))]
    assert found["constant_miou"] == pytest.approx(max(constants), abs=0.006)
    drawn = naive_miou(truth, random.integers(0, len(LABELS), len(truth)), [*range(len(LABELS))])
    assert found["chance_miou"] == pytest.approx(drawn, rel=0.03)
    assert found["miou"] == 100.0


@pytest.mark.slow
def test_pictures_show_the_answer_that_is_scored(tmp_path: Path):
    """The evaluation's own entry, and the pictures of the report: the same classes at the same pixels."""
    prepare_folders(tmp_path, 3)
    write_scenes(tmp_path, 5, range(3))
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    torch.manual_seed(0)
    save_model(tmp_path / "model.pt", GroupViT(GroupViTConfig.preset("demo")))
    command = evaluate_command(tmp_path / "model.pt", tmp_path, tmp_path / "out")
    done = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    scored = read_segmentation(tmp_path / "out")
    model, _ = load_model(tmp_path / "model.pt")
    texts, total = class_texts(model, CLASSES), np.zeros((len(LABELS), len(LABELS)), np.int64)
    root = tmp_path / "VOCdevkit/VOC2012"
    for name in ("2012_000000", "2012_000001", "2012_000002"):
        photo = np.asarray(Image.open(root / f"JPEGImages/{name}.jpg"))
        truth = np.asarray(Image.open(root / f"SegmentationClass/{name}.png"))
        guess, groups = see(model, photo, texts)
        assert groups.shape == truth.shape
        total += counted(truth, guess)
    seen = segmentation_figures(list(CLASSES), total)
    assert scored["scenes"] == 3
    assert {**seen, "scenes": 3} == pytest.approx(scored, abs=0.02)  # the same pixels but for a rounding
    written = write_pictures(tmp_path / "model.pt", tmp_path, tmp_path / "pictures", 2)
    assert [path.name for path in written] == ["scene-2012_000000.png", "scene-2012_000001.png"]
    width = Image.open(root / "JPEGImages/2012_000000.jpg").width
    assert Image.open(written[0]).width >= 4 * width
