"""Zero-shot classification against one-by-one computation and scikit-learn, on generated scenes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score

from configs.errors import UserError
from demo.world.scenes import make_scene
from evaluation.classify import class_features, classify, find_samples, main, square, summarise
from models.groupvit import GroupViT, GroupViTConfig
from models.pixels import MEAN, STD
from models.templates import PROMPT_TEMPLATES
from models.tokenize import tokenize
from models.weights import load_model, save_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("model") / "tiny.pt"
    model = GroupViT(GroupViTConfig.preset("tiny")).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    save_model(path, model)
    return str(path)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Forty generated scenes in folders called after their largest label."""
    root = tmp_path_factory.mktemp("scenes")
    for number in range(40):
        scene = make_scene((7, 1, number))
        folder = root / next(iter(scene.areas)).replace(" ", "_")
        folder.mkdir(exist_ok=True)
        Image.fromarray(scene.image).save(folder / f"{number}.png")
    return root


@torch.no_grad()
def text_by_text(model, names):
    """(n, E): every text by itself, normalised, averaged, normalised."""
    rows = []
    for name in names:
        texts = [
            tokenize([template.format(name)], model.config.context_length) for template in PROMPT_TEMPLATES
        ]
        features = [model.encode_text(tokens)[0] for tokens in texts]
        mean = sum(feature / feature.norm() for feature in features) / len(features)
        rows.append(mean / mean.norm())
    return torch.stack(rows)


@torch.no_grad()
def cosines_of(model, path, texts):
    """One picture with the classes."""
    pixels = (square(path, model.config.image_size) / 255 - MEAN) / STD
    pooled = model.encode_image(torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]).pooled[0]
    return (texts @ (pooled / pooled.norm())).numpy()


def test_answers_equal_one_by_one_computation(checkpoint, scenes):
    model, _ = load_model(checkpoint)
    names, samples = find_samples(scenes)
    answers, failures = classify(model, samples, class_features(model, names), batch=7)
    assert not failures
    texts = text_by_text(model, names)
    for sample, answer in zip(samples, answers, strict=True):
        cosines = cosines_of(model, sample.path, texts)
        assert cosines[answer] == pytest.approx(np.sort(cosines)[::-1][:5], abs=1e-5)
    assert len(set(answers[:, 0].tolist())) > 1


def test_the_size_of_batches_changes_nothing(checkpoint, scenes):
    model, _ = load_model(checkpoint)
    names, samples = find_samples(scenes)
    texts = class_features(model, names)
    one, many = (classify(model, samples, texts, batch, threads)[0] for batch, threads in ((1, 1), (64, 3)))
    assert (one == many).mean() > 0.99  # equal but for ties in the last digit


def test_accuracies_are_scikit_learns():
    random = np.random.default_rng(0)
    labels = random.integers(0, 9, 200)
    answers = np.stack([random.permutation(9)[:5] for _ in labels])
    answers[::17] = -1  # not read
    read = answers[:, 0] >= 0
    found = summarise([f"c{n}" for n in range(9)], labels, answers)
    assert found["pictures"] == read.sum()
    assert found["top1"] == pytest.approx(accuracy_score(labels[read], answers[read, 0]))
    assert found["top5"] == pytest.approx(
        np.mean([label in row for label, row in zip(labels[read], answers[read], strict=True)])
    )
    for number, entry in enumerate(found["classes"]):
        own = read & (labels == number)
        assert entry["top1"] == pytest.approx(accuracy_score(labels[own], answers[own, 0]))
        assert sum(entry["mistaken_for"].values()) <= own.sum() - (answers[own, 0] == number).sum()


def test_squares_are_the_middle_of_the_resized_picture(tmp_path):
    random = np.random.default_rng(1)
    for size in ((64, 64), (100, 64), (63, 150), (5, 9), (40, 2000)):
        picture = Image.fromarray(random.integers(0, 255, (size[1], size[0], 3), np.uint8))
        picture.save(tmp_path / "a.png")
        scale = 64 / min(size)  # 8/7 of 56
        whole = picture.resize((round(size[0] * scale), round(size[1] * scale)), Image.Resampling.BICUBIC)
        left, top = round((whole.width - 56) / 2), round((whole.height - 56) / 2)
        expected = np.asarray(whole.crop((left, top, left + 56, top + 56))).astype(int)
        found = square(tmp_path / "a.png", 56)
        assert found.shape == (56, 56, 3)
        assert np.abs(found - expected).mean() < 2, size


def test_the_command_on_scenes_with_a_broken_one(checkpoint, scenes, tmp_path, capsys):
    for folder in scenes.iterdir():
        (tmp_path / "data" / folder.name).mkdir(parents=True)
        for file in folder.iterdir():
            (tmp_path / "data" / folder.name / file.name).symlink_to(file)
    first = sorted(folder.name for folder in scenes.iterdir())[0]
    (tmp_path / "data" / first / "bad.jpg").write_text("<html>")
    out = tmp_path / "out"
    code = main(
        ["--checkpoint", checkpoint, "--data", str(tmp_path / "data"), "--out", str(out), "--per-class"]
    )
    results = json.loads((out / "results.json").read_text())
    assert code == 1
    assert results["pictures"] == 40
    assert len(results["not_read"]) == 1
    assert 0 <= results["top1"] <= results["top5"] <= 1
    assert results["top5"] > 0
    weights = [entry["pictures"] for entry in results["classes"]]
    assert results["top1"] == pytest.approx(
        np.average([entry["top1"] for entry in results["classes"]], weights=weights)
    )
    captured = capsys.readouterr()
    assert "bad.jpg" in captured.err
    assert f"top-1 {results['top1']:.2%}" in captured.out


def test_names_come_from_a_file_or_the_folders(scenes):
    names, samples = find_samples(scenes)
    assert not any("_" in name for name in names)
    assert len(samples) == 40
    folders = sorted(folder.name for folder in scenes.iterdir())
    assert find_samples(scenes, {name: name.upper() for name in folders})[0] == [
        name.upper() for name in folders
    ]
    with pytest.raises(UserError, match=f"first '{folders[0]}'"):
        find_samples(scenes, {name: name for name in folders[1:]})
    with pytest.raises(UserError, match="both"):
        find_samples(scenes, dict.fromkeys(folders, "same"))


def test_what_is_wrong_with_the_folder_is_said(checkpoint, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        find_samples(tmp_path / "none")
    with pytest.raises(UserError, match="no folder in it"):
        find_samples(tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(UserError, match="no picture"):
        find_samples(tmp_path)
    with pytest.raises(UserError, match="--batch 0"):
        main(["--checkpoint", checkpoint, "--data", str(tmp_path), "--batch", "0"])
