"""The command: all layouts, figures counted by hand, several processes, and what is wrong said in one line."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from configs.errors import UserError
from evaluation import evaluate
from evaluation.benchmarks.catalogue import ALL, VARIANTS
from evaluation.benchmarks.datasets import read_image
from evaluation.mask_files import decode_mask
from evaluation.protocol import Protocol, best_classes, class_texts, resize_short_side
from models.pixels import normalise
from models.weights import load_model
from tests.evaluation.benchmarks.layouts import IMAGES, make_layout, save_mask, tiny_weights, write_names
from tests.evaluation.decided import slide
from tests.faults.storage import needs_mount, small_disk

ROOT = Path(__file__).parents[2]
CLASSES = "background\ndog\ncat\nsky\n"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.pt")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """All layouts in one folder."""
    root = tmp_path_factory.mktemp("data")
    for name in ALL:
        make_layout(root, name)
    return root


def run(weights: Path, out: Path, *options: str) -> dict:
    """The command in this process; what results.json says."""
    assert evaluate.main(["--checkpoint", str(weights), "--out", str(out), *options]) == 0
    return json.loads((out / "results.json").read_text())


def own_data(root: Path, classes: str = CLASSES) -> list[str]:
    """Options for data of one's own: VOC's layout with the first ids."""
    made = make_layout(root, "voc")
    for _, mask in made:
        few = decode_mask(mask.read_bytes())
        Image.fromarray(np.where(few == 255, 255, few % 4).astype(np.uint8)).save(mask)
    listing = root / "classes.txt"
    listing.write_text(classes)
    return ["--benchmark", "folder", "--data", str(root), "--classes", str(listing)]


def test_all_benchmarks_run_on_their_layouts(weights, data, tmp_path, capsys):
    names = ",".join(["all", *VARIANTS])
    found = run(weights, tmp_path, "--benchmark", names, "--data", str(data), "--partial", "--pictures", "1")
    assert [entry["name"] for entry in found["benchmarks"]] == [*ALL, *VARIANTS]
    for entry in found["benchmarks"]:
        assert (entry["images"], entry["unreadable"]) == (IMAGES, [])
        assert 0 <= entry["miou"] <= 100
        assert 0 <= entry["pixel_accuracy"] <= 100
        known = [value for value in entry["classes"].values() if value is not None]
        assert entry["miou"] == pytest.approx(sum(known) / len(known))
        assert len(list((tmp_path / "pictures" / entry["name"]).glob("0000-*.png"))) == 1
    assert {"checkpoint", "checkpoint_sha256", "model", "packages", "processes"} <= set(found)
    table = capsys.readouterr().out
    assert "COCO-Stuff" in table
    assert "3 of 5,000" in table
    assert (tmp_path / "miou.png").stat().st_size > 10_000
    assert not list(tmp_path.glob(".*")), "mmengine's files stay"


@pytest.mark.parametrize("name", ["voc", "imagenet_s_50", "ade20k"])
def test_figures_are_those_counted_from_predictions_by_hand(weights, tmp_path, name):
    """Files to figures without mmseg, mmengine or our segmentor: read, resize, slide, count.

    The truth is the prediction with stripes of something else, so that there are hits to count.
    """
    made = make_layout(tmp_path, name)
    options = ["--benchmark", name, "--data", str(tmp_path), "--partial"]
    known = run(weights, tmp_path / "out", *options)["benchmarks"][0]
    guesses = [predicted_by_hand(image, weights, known) for image, _ in made]
    count, ignored = len(known["classes"]), known["protocol"]["ignore_index"]
    hits, unions, right, pixels = np.zeros(count), np.zeros(count), 0, 0
    for (_, mask), guess in zip(made, guesses, strict=True):
        truth = guess.copy()
        truth[::5], truth[1::5], truth[:, ::7] = 3, ignored, (guess[:, ::7] + 1) % count
        on_disk = np.where(truth == ignored, 0, truth + 1) if name == "ade20k" else truth
        save_mask(mask, on_disk, wide=ignored > 255)
        valid = truth != ignored
        for number in range(count):
            hits[number] += np.sum(valid & (guess == number) & (truth == number))
            unions[number] += np.sum(valid & ((guess == number) | (truth == number)))
        right, pixels = right + np.sum(valid & (guess == truth)), pixels + np.sum(valid)
    entry = run(weights, tmp_path / "out", *options)["benchmarks"][0]
    assert entry["unreadable"] == []
    assert (hits > 0).sum() >= 2
    with open(tmp_path / "out" / entry["confusion_file"], newline="") as stream:
        header, *rows = csv.reader(stream)
    counts = np.array([row[1:] for row in rows], int)
    assert header[1:] == [row[0] for row in rows] == list(entry["classes"])
    assert np.array_equal(counts.diagonal(), hits)
    assert np.array_equal(counts.sum(0) + counts.sum(1) - hits, unions)
    for number, value in enumerate(entry["classes"].values()):
        assert value == (pytest.approx(100 * hits[number] / unions[number]) if unions[number] else None)
    assert entry["miou"] == pytest.approx(100 * np.mean(hits[unions > 0] / unions[unions > 0]))
    assert entry["pixel_accuracy"] == pytest.approx(100 * right / pixels)


def predicted_by_hand(image: Path, weights: Path, entry: dict) -> np.ndarray:
    model, _ = load_model(weights)
    sizes = {key: entry["protocol"][key] for key in ("window", "stride", "background_threshold")}
    photo = np.asarray(Image.open(image).convert("RGB"))
    small = resize_short_side(photo, entry["protocol"]["short_side"], entry["protocol"]["long_side"])
    pixels = normalise(torch.from_numpy(small)[None])[0]
    scores = slide(model, pixels, class_texts(model, entry["prompts"]), **sizes)
    return best_classes(scores, photo.shape[:2]).numpy()


def test_results_name_checkpoint_protocol_and_time(weights, tmp_path):
    import hashlib

    options = own_data(tmp_path)
    found = run(weights, tmp_path / "out", *options, "--background-threshold", "0.4")
    assert found["checkpoint_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    entry = found["benchmarks"][0]
    # 448 and 224 pixels are for models of 224; this one has 32
    assert entry["protocol"] == {
        "short_side": 64, "window": 64, "stride": 32, "background_threshold": 0.4, "top": 5, "long_side": 293,
        "template": "a photo of a {}.", "ignore_index": 255,
    }  # fmt: skip
    assert entry["prompts"] == ["dog", "cat", "sky"]
    assert list(entry["classes"]) == ["background", "dog", "cat", "sky"]
    assert entry["seconds"] > 0
    assert found["model"]["image_size"] == 32


@pytest.mark.parametrize("changes", [["--batch", "3", "--max-windows", "2"], ["--max-windows", "1"]])
def test_batches_change_no_figure(weights, tmp_path, changes):
    options = own_data(tmp_path)
    one, other = run(weights, tmp_path / "a", *options), run(weights, tmp_path / "b", *options, *changes)
    for key in ("miou", "pixel_accuracy", "classes", "images"):
        assert one["benchmarks"][0][key] == other["benchmarks"][0][key]


@pytest.mark.slow
def test_hosts_that_do_not_share_the_folder_are_told_so(weights, tmp_path):
    """Two processes as torchrun starts them on two hosts, whose relative --out is a folder of each one's own."""
    options = [*own_data(tmp_path / "data"), "--checkpoint", str(weights), "--out", "results"]
    code = (
        f"import evaluation.benchmarks.runs as runs; runs._SHARED_SECONDS = 0.5; evaluate.main({options!r})"
    )
    code = f"from evaluation import evaluate; from configs.errors import run_entry; run_entry(lambda _: exec({code!r}))"
    port, started = str(free_port()), []
    for rank in range(2):
        folder = tmp_path / f"host{rank}"
        folder.mkdir()
        here = {
            "RANK": str(rank),
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=folder, env={**os.environ, **here, "PYTHONPATH": paths},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        started.append(process)
    for process in started:
        text, _ = process.communicate(timeout=120)
        assert process.returncode == 2, text
        assert "--out results: process 1 of 2 does not see what process 0 wrote there" in text
        assert "Traceback" not in text
    assert not list(tmp_path.glob("host*/results/.scratch*"))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_two_processes_give_the_figures_of_one(weights, tmp_path):
    """Three images on two processes: shares of different sizes; a bad one among them, pictures by both."""
    options = own_data(tmp_path)
    (tmp_path / "VOCdevkit/VOC2012/JPEGImages/000000000001.jpg").write_bytes(b"no image")
    one = run(weights, tmp_path / "a", *options)
    command = [
        "--checkpoint",
        str(weights),
        "--out",
        str(tmp_path / "b"),
        *options,
        "--processes",
        "2",
        "--pictures",
        "3",
    ]
    # a process of its own: the workers of this one would find pytest as their main module
    done = subprocess.run(
        [sys.executable, "-m", "evaluation.evaluate", *command],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    other = json.loads((tmp_path / "b" / "results.json").read_text())
    for key in ("miou", "pixel_accuracy", "classes", "images", "unreadable", "protocol"):
        assert one["benchmarks"][0][key] == other["benchmarks"][0][key], key
    assert (one["processes"], other["processes"]) == (1, 2)
    assert len(list((tmp_path / "b/pictures/folder").glob("*.png"))) == 2
    assert {path.name for path in (tmp_path / "b").iterdir()} == {
        "index.html", "results.json", "miou.png", "pictures", "confusion-folder.csv",
    }  # fmt: skip


@needs_mount
def test_a_disk_that_two_processes_fill_is_one_line(weights, tmp_path):
    options = [*own_data(tmp_path / "data"), "--checkpoint", str(weights), "--pictures", "3"]
    with small_disk(tmp_path / "disk", "128k") as disk:
        out = disk / "out"
        out.mkdir()
        # mmengine's folder and the parts of the counts fit; a picture, which one of the processes writes, does not
        (disk / "others").write_bytes(bytes(128 * 1024 - 6 * os.sysconf("SC_PAGE_SIZE")))
        command = [
            sys.executable,
            "-m",
            "evaluation.evaluate",
            *options,
            "--out",
            str(out),
            "--processes",
            "2",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        left = [path.name for path in out.rglob("*") if path.is_file() or "scratch" in path.name]
    assert done.returncode == 2, done.stderr[-3000:]
    assert [line for line in done.stderr.splitlines() if line.startswith("error")] == [
        f"error: --out {out}: the disk takes no more ({os.strerror(errno.ENOSPC)}); free space and run again, or name "
        "another folder"
    ]
    assert "Traceback" not in done.stderr
    assert not [name for name in left if name == "results.json" or "partial" in name or "scratch" in name]


@pytest.mark.parametrize("kind", ["cut", "text", "empty", "jpeg-2000", "no-mask", "other-size", "wrong-ids"])
def test_a_bad_file_is_counted_and_named_and_the_rest_goes_on(weights, tmp_path, capsys, kind):
    options = own_data(tmp_path)
    folder = tmp_path / "VOCdevkit/VOC2012"
    image, mask = folder / "JPEGImages/000000000001.jpg", folder / "SegmentationClass/000000000001.png"
    damage = {
        "cut": lambda: image.write_bytes(image.read_bytes()[:-300]),
        "text": lambda: image.write_text("no image"),
        "empty": lambda: image.write_bytes(b""),
        "jpeg-2000": lambda: Image.open(image).save(image, "JPEG2000"),  # OpenCV would decode it
        "no-mask": lambda: mask.write_bytes(mask.read_bytes()[:60]),
        "other-size": lambda: Image.new("L", (9, 9)).save(mask),
        "wrong-ids": lambda: Image.fromarray(np.full((75, 50), 7, np.uint8)).save(mask),
    }
    damage[kind]()
    entry = run(weights, tmp_path / "out", *options, "--pictures", "9")["benchmarks"][0]
    assert entry["images"] == IMAGES - 1
    (reason,) = entry["unreadable"]
    assert "000000000001" in reason
    assert "1 left out" in capsys.readouterr().out
    assert len(list((tmp_path / "out/pictures/folder").iterdir())) == IMAGES - 1
    # the others count as if it were not there
    write_names(folder / "ImageSets/Segmentation/val.txt", ["000000000000", "000000000002"])
    without = run(weights, tmp_path / "out2", *options)["benchmarks"][0]
    assert without["classes"] == entry["classes"]


def test_no_usable_image_at_all_is_an_error(weights, tmp_path):
    options = own_data(tmp_path)
    for image in tmp_path.rglob("*.jpg"):
        image.write_text("no image")
    with pytest.raises(UserError, match="not one image could be used; the first: .*000000000000"):
        run(weights, tmp_path / "out", *options)


def test_limit_takes_the_first_images_and_per_class_prints_them(weights, data, tmp_path, capsys):
    options = ["--benchmark", "ade20k", "--data", str(data), "--limit", "2", "--per-class"]
    entry = run(weights, tmp_path, *options)["benchmarks"][0]
    assert (entry["images"], entry["images_of_split"]) == (2, 2000)
    printed = capsys.readouterr().out
    assert "2 of 2,000" in printed
    assert "chest of drawers" in printed


def test_own_data_may_lie_directly_in_the_folder(weights, tmp_path):
    options = own_data(tmp_path)
    nested = run(weights, tmp_path / "a", *options)
    options[options.index("--data") + 1] = str(tmp_path / "VOCdevkit/VOC2012")
    assert (
        run(weights, tmp_path / "b", *options)["benchmarks"][0]["classes"]
        == nested["benchmarks"][0]["classes"]
    )


def test_own_sizes_are_taken_and_recorded(weights, tmp_path):
    options = [
        *own_data(tmp_path, "dog\ncat\nsky\ncar\n"),
        "--short-side",
        "48",
        "--window",
        "40",
        "--stride",
        "24",
    ]
    entry = run(weights, tmp_path / "out", *options)["benchmarks"][0]
    assert [entry["protocol"][key] for key in ("short_side", "window", "stride")] == [48, 40, 24]
    assert entry["protocol"]["background_threshold"] is None


def test_generated_scenes_run_with_the_demos_model(tmp_path):
    from demo.voc import CLASSES, prepare_folders, write_scenes
    from models.groupvit import GroupViT, GroupViTConfig
    from models.weights import save_model

    prepare_folders(tmp_path, 2)
    write_scenes(tmp_path, 0, range(2))
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    save_model(tmp_path / "demo.pt", GroupViT(GroupViTConfig.preset("demo")))
    options = ["--benchmark", "folder", "--data", str(tmp_path), "--classes", str(tmp_path / "classes.json")]
    entry = run(tmp_path / "demo.pt", tmp_path / "out", *options)["benchmarks"][0]
    assert entry["images"] == 2
    assert entry["protocol"] == {
        **Protocol(128, 128, 64).__dict__,
        "long_side": 585,
        "ignore_index": 255,
    }
    assert list(entry["classes"]) == list(CLASSES)


def test_real_photos_and_masks_of_coco(weights, real_data, tmp_path):
    """COCO Object on real files: the masks of the folder are ready made, ids as in its classes.json."""
    source = real_data / "coco-captions-masks"
    names = sorted(path.stem for path in (source / "masks").glob("*.png"))[:10]
    base = tmp_path / "coco_stuff164k"
    for part, kind, suffix in (("images", "images", ".jpg"), ("annotations", "masks", "_objectTrainIds.png")):
        (base / part / "val2017").mkdir(parents=True)
        for name in names:
            origin = source / kind / f"{name}{'.jpg' if kind == 'images' else '.png'}"
            shutil.copy(origin, base / part / "val2017" / f"{name}{suffix}")
    options = ["--benchmark", "coco_object", "--data", str(tmp_path), "--partial", "--pictures", "2"]
    entry = run(weights, tmp_path / "out", *options)["benchmarks"][0]
    assert (entry["images"], entry["unreadable"]) == (10, [])
    listed = json.loads((source / "classes.json").read_text())
    assert list(entry["classes"].values()).count(None) < 81
    assert [name for name in entry["prompts"] if name not in json.dumps(listed)] == []
    present = set(
        np.unique(np.concatenate([np.unique(Image.open(p)) for p in base.rglob("*_objectTrainIds.png")]))
    )
    for number, value in enumerate(entry["classes"].values()):
        assert number not in present or value is not None
    assert math.isfinite(entry["miou"])


# --- mistakes ----------------------------------------------------------------------------------------------


@pytest.fixture
def never_loaded(monkeypatch):
    """The model must not be loaded before the mistake is found."""

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("a weight file was read")

    monkeypatch.setattr("models.weights.read_weight_file", loaded)
    monkeypatch.setattr("evaluation.benchmarks.runs.load_model", loaded)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--benchmark", "vocc"], "did you mean 'voc'"),
        (["--benchmark", "voc,ade"], "'ade' is unknown"),
        (["--benchmark", "voc", "--data", "{root}/none"], "no such folder"),
        (["--benchmark", "voc"], "PASCAL VOC has 1,449 images, found 3"),
        (["--benchmark", "cityscapes", "--data", "{root}/VOCdevkit"], r"leftImg8bit/val: folder missing"),
        (["--benchmark", "folder"], "needs --classes FILE"),
        (["--benchmark", "folder", "--classes", "{root}/none.txt"], "no such file"),
        (["--benchmark", "ade20k", "--background-threshold", "0.5"], "ADE20K has no background"),
        (["--benchmark", "voc", "--background-threshold", "95"], "not between 0 and 1"),
        (["--benchmark", "voc", "--batch", "0"], "--batch: 0 is too small"),
    ],
)
def test_mistakes_are_found_before_the_model_is_loaded(weights, data, never_loaded, options, told):
    options = [option.replace("{root}", str(data)) for option in options]
    if "--data" not in options:
        options += ["--data", str(data)]
    with pytest.raises(UserError, match=told):
        evaluate.main(["--checkpoint", str(weights), *options])


@pytest.mark.parametrize(
    ("classes", "more", "told"),
    [
        ("background\ndog\ncat\nDog\n", [], "classes 2 and 4 are both 'Dog'"),
        ("", [], "no class names"),
        (
            "dog\ncat\nsky\ncar\n",
            ["--background-threshold", "0.5"],
            "the first line of .* must be 'background'",
        ),
        (CLASSES, ["--window", "20", "--stride", "40"], "--stride: 40 is more than the window, 20"),
    ],
)
def test_class_lists_and_sizes_that_cannot_be(weights, tmp_path, classes, more, told):
    with pytest.raises(UserError, match=told):
        evaluate.main(["--checkpoint", str(weights), *own_data(tmp_path, classes), *more])


def test_wrong_checkpoints_are_one_line(tmp_path):
    options = own_data(tmp_path)
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"format": "something else"}, tmp_path / "other.pt")
    for name, told in (
        ("none.pt", "no such weight file"),
        ("text.pt", "text.pt"),
        ("other.pt", "something else"),
    ):
        with pytest.raises(UserError, match=told):
            evaluate.main(["--checkpoint", str(tmp_path / name), *options])


def test_a_place_for_the_results_is_needed(weights, tmp_path):
    options = own_data(tmp_path)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="--out .*taken: nothing can be written there .a file stands there"):
        evaluate.main(["--checkpoint", str(weights), "--out", str(tmp_path / "taken"), *options])


def test_the_command_ends_with_one_line_and_code_2(tmp_path):
    command = [
        sys.executable,
        "-m",
        "evaluation.evaluate",
        "--checkpoint",
        "x.pt",
        "--benchmark",
        "vox",
        "--data",
        ".",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --benchmark: 'vox' is unknown; did you mean 'voc'?")
    assert len(done.stderr.strip().splitlines()) == 1


def test_photos_are_decoded_by_pillow_but_for_jpeg(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for suffix in ("png", "tif", "bmp"):
        Image.fromarray(rgb).save(tmp_path / f"a.{suffix}")
        np.testing.assert_array_equal(read_image(str(tmp_path / f"a.{suffix}")), rgb[..., ::-1])
    palette = Image.fromarray(rgb).quantize(16)
    palette.save(tmp_path / "palette.png")
    expected = np.asarray(palette.convert("RGB"))[..., ::-1]
    np.testing.assert_array_equal(read_image(str(tmp_path / "palette.png")), expected)
    Image.fromarray(rgb).save(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.jpg")), cv2.imread(str(tmp_path / "a.jpg")))
    Image.fromarray(rgb).save(tmp_path / "a.jp2")
    with pytest.raises(UnidentifiedImageError):
        read_image(str(tmp_path / "a.jp2"))
