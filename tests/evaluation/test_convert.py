"""The conversions: ids against mmseg's own table and real masks, files written whole, bad masks named."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluation.benchmarks.mmseg_import  # noqa: F401  (before mmseg)
from configs.errors import UserError
from evaluation import convert
from evaluation.benchmarks.masks import (
    COCO_UNUSED,
    coco_object_ids,
    coco_stuff_ids,
    imagenet_s_ids,
)
from evaluation.class_names import imagenet_s_names
from evaluation.mask_files import MaskError, decode_mask
from tests.evaluation.benchmarks.layouts import save_mask


def mmseg_table() -> dict[int, int]:
    """Published id -> train id, out of mmseg's converter."""
    package = importlib.util.find_spec("mmseg")
    assert package is not None
    script = Path(str(package.origin)).parent / ".mim/tools/dataset_converters/coco_stuff164k.py"
    spec = importlib.util.spec_from_file_location("coco_stuff164k", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.clsID_to_trID


def coco_folder(root: Path, split: str = "val2017") -> Path:
    return root / "coco_stuff164k/annotations" / split


def run(command: str, root: Path, *options: str) -> None:
    assert convert.main([command, "--data", str(root), *options]) == 0


def test_coco_stuff_ids_are_mmsegs():
    table = mmseg_table()
    assert len(table) == 172
    ids = np.array([sorted(table)])
    assert coco_stuff_ids(ids).tolist() == [[table[number] for number in sorted(table)]]
    assert sorted(set(range(256)) - set(table)) == sorted([*COCO_UNUSED, *range(182, 255)])


@pytest.mark.parametrize("wrong", [*sorted(COCO_UNUSED), 182, 254, 300])
def test_ids_of_no_class_are_refused(wrong):
    with pytest.raises(MaskError, match=f"holds id {wrong}"):
        coco_stuff_ids(np.array([[0, wrong]]))


def test_coco_object_keeps_the_things_and_nothing_else():
    table = mmseg_table()
    for published, train in table.items():
        expected = train + 1 if train < 80 else 0
        assert coco_object_ids(np.array([[published]])).item() == expected


def test_coco_object_on_real_masks(real_data, tmp_path):
    """Real masks put back into COCO's ids, with stuff and unlabelled pixels where they have background."""
    source = real_data / "coco-captions-masks"
    names = [entry["name"] for entry in json.loads((source / "classes.json").read_text())]
    published_of = {train + 1: published for published, train in mmseg_table().items() if train < 80}
    table = np.zeros(81, np.uint8)
    table[list(published_of)] = list(published_of.values())
    masks = sorted((source / "masks").glob("*.png"))[:10]
    present = set()
    for path in masks:
        mask = np.asarray(Image.open(path))
        present.update(np.unique(mask).tolist())
        raw = np.where(mask == 0, 255, table[mask])
        raw[::2][mask[::2] == 0] = 95
        save_mask(coco_folder(tmp_path) / path.name, raw)
    assert len(present) > 8
    run("coco-object", tmp_path, "--partial")
    for path in masks:
        made = coco_folder(tmp_path) / f"{path.stem}_objectTrainIds.png"
        assert np.array_equal(decode_mask(made.read_bytes()), np.asarray(Image.open(path)))
    from evaluation.benchmarks.datasets import COCOObjectDataset

    assert list(COCOObjectDataset.METAINFO["classes"][1:]) == names


def test_both_coco_conversions_read_the_published_masks_only_and_repeat(tmp_path, capsys):
    save_mask(coco_folder(tmp_path) / "000000000001.png", np.array([[0, 89, 91], [181, 255, 12]]))
    for _ in range(2):
        run("coco-stuff", tmp_path, "--partial")
        run("coco-object", tmp_path, "--partial")
    stuff = decode_mask((coco_folder(tmp_path) / "000000000001_labelTrainIds.png").read_bytes())
    things = decode_mask((coco_folder(tmp_path) / "000000000001_objectTrainIds.png").read_bytes())
    assert stuff.tolist() == [[0, 79, 80], [170, 255, 11]]
    assert things.tolist() == [[1, 80, 0], [0, 0, 12]]
    assert len(list(coco_folder(tmp_path).iterdir())) == 3
    assert "1 masks" in capsys.readouterr().out


def test_a_bad_mask_stops_the_conversion_and_is_named(tmp_path):
    save_mask(coco_folder(tmp_path) / "000000000001.png", np.zeros((4, 4)))
    save_mask(coco_folder(tmp_path) / "000000000002.png", np.full((4, 4), 11))
    with pytest.raises(UserError, match=r"000000000002\.png: holds id 11.*; 1 of 2 masks"):
        run("coco-stuff", tmp_path, "--partial")
    (coco_folder(tmp_path) / "000000000002.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"000000000002\.png: .*1 of 2"):
        run("coco-object", tmp_path, "--partial")
    assert not list(coco_folder(tmp_path).glob(".*"))


def test_counts_are_checked(tmp_path):
    save_mask(coco_folder(tmp_path) / "000000000001.png", np.zeros((4, 4)))
    with pytest.raises(UserError, match="1 masks, the split has 5,000; complete it, or add --partial"):
        run("coco-stuff", tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        run("coco-stuff", tmp_path, "--split", "train2017")
    with pytest.raises(UserError, match="no such folder"):
        run("coco-stuff", tmp_path / "none")


@pytest.mark.slow
def test_several_processes_convert_the_same(tmp_path):
    rng = np.random.default_rng(0)
    ids = [number for number in mmseg_table() if number < 182]
    for number in range(5):
        save_mask(coco_folder(tmp_path) / f"{number:012d}.png", rng.choice(ids, (6, 7)))
    run("coco-stuff", tmp_path, "--partial")
    made = sorted(coco_folder(tmp_path).glob("*_labelTrainIds.png"))
    before = {path: path.read_bytes() for path in made}
    for path in made:
        path.unlink()
    run("coco-stuff", tmp_path, "--partial", "--processes", "2")
    assert {path: path.read_bytes() for path in made} == before


def imagenet_s(root: Path, folders: int = 50) -> Path:
    base = root / "ImageNetS50/validation-segmentation"
    for number in range(folders):
        mask = np.full((3, 4), number + 1)
        mask[0] = [0, 1000, 1000, 0]
        save_mask(base / f"n{number:08d}" / f"ILSVRC2012_val_{number:08d}.png", mask, wide=True)
    return base


def test_imagenet_s_masks_become_16_bit_and_keep_1000(tmp_path):
    imagenet_s(tmp_path)
    run("imagenet-s", tmp_path, "--partial")
    made = tmp_path / "ImageNetS50/validation-segmentation-16bit/n00000029/ILSVRC2012_val_00000029.png"
    with Image.open(made) as image:
        assert image.mode.startswith("I;16")
    assert decode_mask(made.read_bytes()).tolist() == [[0, 1000, 1000, 0], [30] * 4, [30] * 4]
    assert len(list(made.parents[1].rglob("*.png"))) == len(imagenet_s_names(50)) == 50


def test_imagenet_s_ids_and_folders_are_checked(tmp_path):
    with pytest.raises(MaskError, match="holds id 51"):
        imagenet_s_ids(np.array([[51]]), 50)
    with pytest.raises(MaskError, match="it holds class 3, and its folder is class 4"):
        imagenet_s_ids(np.array([[0, 3, 1000]]), 50, own=4)
    assert imagenet_s_ids(np.array([[0, 1000]]), 50, own=4).dtype == np.uint16
    base = imagenet_s(tmp_path, folders=49)
    with pytest.raises(UserError, match="49 class folders; there must be 50"):
        run("imagenet-s", tmp_path)
    (base / "n00000049").mkdir()
    save_mask(base / "n00000049" / "a.png", np.full((3, 4), 7), wide=True)
    with pytest.raises(UserError, match=r"a\.png: it holds class 7, and its folder is class 50"):
        run("imagenet-s", tmp_path, "--partial")


def context_files(root: Path, names: list[str]) -> Path:
    """459 made-up labels among which the 59 stand anywhere, and .mat files as published."""
    from mmseg.datasets import PascalContextDataset
    from scipy.io import savemat

    labels = root / "labels"
    labels.mkdir()
    classes = list(PascalContextDataset.METAINFO["classes"][1:])
    listed = [f"other{number}" for number in range(459)]
    listed[200:259] = classes[::-1]
    (labels / "labels.txt").write_text(
        "".join(f"{number}: {name}\n" for number, name in enumerate(listed, start=1))
    )
    rng = np.random.default_rng(0)
    for name in names:
        savemat(labels / f"{name}.mat", {"LabelMap": rng.integers(190, 270, (5, 6)).astype(np.uint16)})
    split = root / "VOCdevkit/VOC2010/ImageSets/Main/val.txt"
    split.parent.mkdir(parents=True)
    split.write_text("".join(f"{name}\n" for name in [*names, "2008_000009"]))
    return labels


def test_context_labels_become_59_classes_and_background(tmp_path):
    from scipy.io import loadmat

    names = ["2008_000002", "2008_000003"]
    labels = context_files(tmp_path, names)
    run("context", tmp_path, "--labels", str(labels), "--partial")
    base = tmp_path / "VOCdevkit/VOC2010"
    assert (base / "ImageSets/SegmentationContext/val.txt").read_text().split() == names
    for name in names:
        raw = loadmat(labels / f"{name}.mat")["LabelMap"].astype(int)
        made = decode_mask((base / f"SegmentationClassContext/{name}.png").read_bytes())
        # id 201 is the last of the 59, 259 the first
        assert np.array_equal(made, np.where((raw >= 201) & (raw <= 259), 260 - raw, 0))


def test_context_says_what_is_missing(tmp_path):
    labels = context_files(tmp_path, ["2008_000002"])
    with pytest.raises(UserError, match="1 masks, the split has 5,104 or 5,105"):
        run("context", tmp_path, "--labels", str(labels))
    text = (labels / "labels.txt").read_text()
    (labels / "labels.txt").write_text(text.replace(": aeroplane\n", ": airplane\n"))
    with pytest.raises(UserError, match="has no class 'aeroplane'"):
        run("context", tmp_path, "--labels", str(labels), "--partial")
    with pytest.raises(UserError, match=r"labels\.txt: missing"):
        run("context", tmp_path, "--labels", str(tmp_path), "--partial")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_disk_that_is_full_in_the_middle_is_one_line(tmp_path, limited, capsys, processes):
    folder = coco_folder(tmp_path)
    save_mask(folder / "1.png", np.zeros((4, 4), np.uint8))
    save_mask(folder / "2.png", np.random.default_rng(0).integers(0, 10, (90, 90)).astype(np.uint8))
    with pytest.raises(
        UserError, match=f"^--data {tmp_path}: the disk takes no more .File too large.; free space"
    ):
        limited(1000, run, "coco-stuff", tmp_path, "--partial", "--processes", processes)
    assert {path.name for path in folder.iterdir()} <= {"1.png", "2.png", "1_labelTrainIds.png"}
