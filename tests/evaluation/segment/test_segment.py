"""The segment command on photos of every kind, against a plain computation of the protocol."""

import json
import re
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from configs.errors import UserError
from evaluation.segment.__main__ import main
from evaluation.segment.pictures import indexed_mask
from models.groupvit import GroupViT, GroupViTConfig
from models.pixels import MEAN, STD
from models.tokenize import tokenize
from models.weights import load_model, save_model

CLASSES = ["dog", "grass", "blue sky", "boat"]
WORDS = ", ".join(CLASSES)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny model whose random weights are large enough to see different classes in a picture."""
    torch.manual_seed(4)
    model = GroupViT(GroupViTConfig.preset("tiny")).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    path = tmp_path_factory.mktemp("model") / "tiny.pt"
    save_model(path, model)
    return str(path)


def picture(height, width, seed=0):
    random = np.random.default_rng(seed)
    small = random.integers(0, 255, (max(1, height // 12), max(1, width // 12), 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def run(checkpoint, out, *arguments, classes=WORDS):
    code = main(["--checkpoint", checkpoint, "--classes", classes, "--out", str(out), *map(str, arguments)])
    return code, json.loads((Path(out) / "results.json").read_text())


def mask_of(out, entry):
    return np.asarray(Image.open(Path(out) / entry["mask"]))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def softmax(rows):
    powers = np.exp(rows - rows.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def plain_labels(checkpoint, image, threshold=None, top=5):
    """One window, by NumPy: maps multiplied, segments scored, every pixel by itself."""
    model, _ = load_model(checkpoint)
    pixels = (image.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    with torch.no_grad():
        features = model.encode_image(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()))
        texts = torch.cat(
            [model.encode_text(tokenize([f"a photo of a {name}."], 16)) for name in CLASSES]
        ).numpy()
        scale = float(model.logit_scale.exp().clamp(max=100))
    logits = scale * unit(features.segments[0].numpy()) @ unit(texts).T
    kept = np.argsort(-(unit(features.pooled[0].numpy()) @ unit(texts).T))[:top]
    filtered = np.full_like(logits, -np.inf)
    filtered[:, kept] = logits[:, kept]
    scores = softmax(logits) * softmax(filtered)
    first, last = (stage[0].numpy() for stage in features.assignments)
    maps = (last @ first).reshape(-1, *features.grid).transpose(1, 2, 0)
    whole = cv2.resize(maps, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    by_pixel = scores[whole.argmax(-1)]
    if threshold is None:
        return by_pixel.argmax(-1)
    limit = min(threshold, scores.max())
    return np.where(by_pixel.max(-1) < limit, 0, 1 + by_pixel.argmax(-1))


@pytest.mark.parametrize("threshold", [None, 0.35])
def test_masks_equal_a_plain_computation(checkpoint, tmp_path, threshold):
    images = [picture(64, 64, seed) for seed in range(4)]
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    options = [] if threshold is None else ["--background-threshold", threshold]
    code, results = run(checkpoint, tmp_path / "out", tmp_path, *options)
    assert code == 0
    assert results["classes"] == ([] if threshold is None else ["background"]) + CLASSES
    seen = set()
    for image, entry in zip(images, results["photos"], strict=True):
        mask, expected = mask_of(tmp_path / "out", entry), plain_labels(checkpoint, image, threshold)
        assert (mask == expected).mean() > 0.995  # ties of the interpolation fall either way
        seen |= set(np.unique(mask).tolist())
        shares = np.bincount(mask.ravel(), minlength=len(results["classes"])) / mask.size
        assert list(entry["shares"].values()) == pytest.approx(shares, abs=1e-6)
    assert len(seen) > 1


def test_photos_of_every_kind_and_size(checkpoint, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    image = picture(60, 90)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "a-plain.png": (image, {}), "b-turned.png": (np.rot90(image).copy(), {"exif": exif}), "c-one.png": (image[:1, :1], {}),
        "d-wide.png": (picture(3, 2000), {}), "e-tall.png": (picture(1500, 2), {}), "f-grey.png": (image[..., 0].copy(), {}),
        "g-deep.png": (image[..., 0].astype(np.uint16) * 257, {}), "h-alpha.png": (np.dstack([image, image[..., :1] * 0 + 255]), {}),
        "i-large.png": (picture(2500, 2000), {}),
    }  # fmt: skip
    for name, (pixels, extra) in files.items():
        Image.fromarray(pixels).save(photos / name, **extra)
    out = tmp_path / "out"
    code, results = run(checkpoint, out, photos)
    assert code == 0
    masks = {Path(entry["file"]).name: mask_of(out, entry) for entry in results["photos"]}
    for name, (pixels, extra) in files.items():
        assert masks[name].shape == (pixels.shape[:2] if not extra else pixels.shape[1::-1]), name
    assert np.array_equal(masks["a-plain.png"], masks["b-turned.png"])
    assert np.array_equal(masks["a-plain.png"], masks["h-alpha.png"])
    assert np.array_equal(masks["f-grey.png"], masks["g-deep.png"])


def test_unreadable_photos_are_named_and_the_rest_goes_on(checkpoint, tmp_path, capsys):
    Image.fromarray(picture(40, 40)).save(tmp_path / "good.jpg")
    (tmp_path / "bad <b>.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:300])
    (tmp_path / "page.jpg").write_text("<html>")
    code, results = run(checkpoint, tmp_path / "out", tmp_path)
    assert code == 1
    assert [Path(entry["file"]).name for entry in results["photos"]] == ["good.jpg"]
    assert len(results["not_read"]) == 2
    errors = capsys.readouterr().err
    assert "bad <b>.jpg" in errors
    assert "2 of 3 photos could not be read" in errors
    page = (tmp_path / "out" / "index.html").read_text()
    assert "bad &lt;b&gt;.jpg" in page
    assert "<b>" not in page


def test_the_page_shows_every_picture_and_asks_nobody(checkpoint, tmp_path, capsys):
    for folder in ("one", "two"):  # the same name twice
        (tmp_path / folder).mkdir()
        Image.fromarray(picture(50, 70, len(folder))).save(tmp_path / folder / "p & q?.jpg")
    out = tmp_path / "out"
    run(checkpoint, out, tmp_path / "one", tmp_path / "two", classes="<i>x</i>, dog")
    page = (out / "index.html").read_text()
    sources = [unquote(unescape(text)) for text in re.findall(r'(?:src|href)="([^"]+)"', page)]
    assert len(set(sources)) == 2 * 5
    assert all((out / source).is_file() for source in sources)
    assert "&lt;i&gt;x&lt;/i&gt;" in page
    assert "<i>x" not in page
    assert "http" not in page
    shown = capsys.readouterr().out
    assert "[2/2" in shown
    assert "%" in shown


def test_the_number_of_windows_at_once_changes_nothing(checkpoint, tmp_path):
    Image.fromarray(picture(100, 240)).save(tmp_path / "a.png")
    masks = []
    for count in (1, 32):
        _, results = run(checkpoint, tmp_path / f"out{count}", tmp_path / "a.png", "--max-windows", count)
        masks.append(mask_of(tmp_path / f"out{count}", results["photos"][0]))
    assert np.array_equal(*masks)


def test_background_as_first_class_turns_the_rule_on(checkpoint, tmp_path):
    Image.fromarray(picture(64, 64)).save(tmp_path / "a.png")
    _, results = run(checkpoint, tmp_path / "out", tmp_path / "a.png", classes=f"Background, {WORDS}")
    assert results["classes"] == ["background", *CLASSES]
    assert results["protocol"]["background_threshold"] == 0.95


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", "dog, Dog"], "both 'Dog'"),
        (["--classes", "dog,,sky"], "class 2 has no name"),
        (["--classes", "dog, background"], "first"),
        (["--classes", "background"], "no class"),
        (["--classes", "words.txt"], "words.txt"),
        (["--background-threshold", "2"], "at most 1"),
        (["--window", "0"], "--window 0"),
        (["--stride", "500"], "--stride 500"),
        (["--template", "a photo"], "--template"),
        (["--checkpoint", "{}/a.txt"], "not a weight file"),
        (["--checkpoint", "{}/none.pt"], "no such weight file"),
        (["{}/none.jpg"], "no such file"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(checkpoint, tmp_path, arguments, message):
    Image.fromarray(picture(8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("root:x:0:0")
    base = [
        "--checkpoint",
        checkpoint,
        "--classes",
        WORDS,
        "--out",
        str(tmp_path / "out"),
        str(tmp_path / "a.png"),
    ]
    with pytest.raises(UserError, match=message):
        main([*base, *(text.format(tmp_path) for text in arguments)])
    assert not (tmp_path / "out").exists()


def test_masks_of_many_classes_are_not_cut_to_a_byte(tmp_path):
    labels = np.array([[0, 299]], np.uint16)
    indexed_mask(labels, np.zeros((300, 3), np.uint8)).save(tmp_path / "m.png")
    assert np.asarray(Image.open(tmp_path / "m.png")).tolist() == [[0, 299]]


def test_a_real_photo_end_to_end(checkpoint, tmp_path, real_data):
    photos = sorted((real_data / "coco-captions-masks" / "images").glob("*.jpg"))[:3]
    code, results = run(checkpoint, tmp_path / "out", *photos)
    assert code == 0
    for entry, path in zip(results["photos"], photos, strict=True):
        assert mask_of(tmp_path / "out", entry).shape == Image.open(path).size[::-1]
        assert sum(entry["shares"].values()) == pytest.approx(1, abs=1e-4)
