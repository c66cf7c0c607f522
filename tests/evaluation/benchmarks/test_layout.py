"""The layouts of benchmarks and of one's own data: every file looked for, other names understood, the rest said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.errors import UserError
from evaluation import evaluate
from evaluation.benchmarks.catalogue import ALL, FOLDER, VARIANTS, load_benchmark
from evaluation.benchmarks.layout import check_layout
from tests.evaluation.benchmarks.layouts import IMAGES, make_layout, tiny_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.pt")


@pytest.mark.parametrize("name", [*ALL, *VARIANTS])
def test_every_missing_file_is_named_with_the_layout(name, tmp_path):
    benchmark = load_benchmark(name)
    for number in (1, 0):  # mask, image
        root = tmp_path / str(number)
        gone = make_layout(root, name)[1][number]
        gone.unlink()
        if number == 0 and "ann_file" not in benchmark.dataset:
            # without a list of names an image that is not there is only missed by the count
            with pytest.raises(UserError, match=f"has {benchmark.images:,} images, found 2"):
                check_layout(benchmark, root)
            continue
        with pytest.raises(UserError) as caught:
            check_layout(benchmark, root, partial=True)
        assert str(gone) in str(caught.value)
        assert benchmark.dataset["data_prefix"]["seg_map_path"] in str(caught.value)


def test_missing_folders_lists_and_commands_are_named(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        check_layout(load_benchmark("voc"), tmp_path / "nowhere")
    with pytest.raises(
        UserError, match=r"val\.txt: list of images missing; PASCAL VOC needs VOCdevkit/VOC2012/ with"
    ):
        check_layout(load_benchmark("voc"), tmp_path)
    with pytest.raises(
        UserError, match=r"images/val2017: folder missing.*made by: python -m evaluation.convert coco-stuff"
    ):
        check_layout(load_benchmark("coco_stuff"), tmp_path)


def test_a_partial_data_set_needs_to_be_allowed(tmp_path):
    make_layout(tmp_path, "ade20k")
    with pytest.raises(UserError, match=rf"has 2,000 images, found {IMAGES}; complete it, or add --partial"):
        check_layout(load_benchmark("ade20k"), tmp_path)
    assert (
        check_layout(load_benchmark("ade20k"), tmp_path, partial=True).dataset["data_root"].endswith("2016")
    )


def test_coco_object_takes_the_masks_of_groupvits_converter(tmp_path):
    for _, mask in make_layout(tmp_path, "coco_object"):
        mask.rename(mask.with_name(mask.name.replace("_objectTrainIds", "_instanceTrainIds")))
    found = check_layout(load_benchmark("coco_object"), tmp_path, partial=True)
    assert found.dataset["seg_map_suffix"] == "_instanceTrainIds.png"


@pytest.mark.parametrize(
    ("count", "told"), [(5104, None), (5105, None), (5103, "has 5,104 images, found 5,103")]
)
def test_context_has_5104_or_5105_images(tmp_path, count, told):
    """The usual list of VOC 2010 names an image without labels."""
    first = make_layout(tmp_path, "context")[0]
    names = [f"2010_{number:06d}" for number in range(count)]
    for name in names:
        for path in first:
            path.with_name(f"{name}{path.suffix}").symlink_to(path)
    base = tmp_path / "VOCdevkit/VOC2010"
    (base / "ImageSets/SegmentationContext/val.txt").write_text("\n".join(names))
    if told:
        with pytest.raises(UserError, match=told):
            check_layout(load_benchmark("context"), tmp_path)
    else:
        assert check_layout(load_benchmark("context"), tmp_path).images == count


def test_a_list_of_voc_with_mark_blank_lines_and_crlf_is_the_same_list(weights, tmp_path):
    """mmseg would take each line as it is and look for '\\ufeff000000000000.jpg' and '.jpg'."""
    make_layout(tmp_path, "voc")
    listing = tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    options = ["--benchmark", "voc", "--data", str(tmp_path), "--partial", "--out", str(tmp_path / "out")]
    found = []
    for content in (listing.read_bytes(), b"\xef\xbb\xbf" + listing.read_bytes().replace(b"\n", b"\r\n\r\n")):
        listing.write_bytes(content)
        assert evaluate.main(["--checkpoint", str(weights), *options]) == 0
        (entry,) = json.loads((tmp_path / "out/results.json").read_text())["benchmarks"]
        assert (entry["images"], entry["unreadable"]) == (IMAGES, [])
        found.append(entry["classes"])
    assert found[0] == found[1]


# --- files as people have them: each of these folders holds voc_good's two pictures in another form --------


def figures(weights: Path, data: Path, out: Path, classes: Path) -> dict:
    options = ["--benchmark", FOLDER, "--data", str(data), "--classes", str(classes), "--out", str(out)]
    assert evaluate.main(["--checkpoint", str(weights), *options]) == 0
    (entry,) = json.loads((out / "results.json").read_text())["benchmarks"]
    assert entry["unreadable"] == []
    return {key: entry[key] for key in ("classes", "miou", "pixel_accuracy", "images", "ignored_pixels")}


@pytest.fixture
def inputs(real_data) -> Path:
    return real_data / "failing-inputs"


@pytest.mark.parametrize(
    "name",
    ["voc_JPGimages", "voc_la", "voc_rgb_same", "voc_val_blank", "voc_val_bom", "made-crlf", "made-png"],
)
def test_the_same_pictures_in_other_files_give_the_same_figures(weights, inputs, tmp_path, name):
    classes = inputs / "voc_classes/good.txt"
    expected = figures(weights, inputs / "voc_good", tmp_path / "good", classes)
    data = tmp_path / "made"
    if name.startswith("made"):
        shutil.copytree(inputs / "voc_good", data)
        listing = data / "ImageSets/Segmentation/val.txt"
        listing.write_bytes(listing.read_bytes().replace(b"\n", b"\r\n"))
    if name == "made-png":
        for photo in list((data / "JPEGImages").iterdir()):
            Image.open(photo).save(photo.with_suffix(".PNG"))
            photo.unlink()
    found = figures(weights, data if name.startswith("made") else inputs / name, tmp_path / "out", classes)
    assert found == expected
    assert expected["images"] == 2
    assert len([value for value in expected["classes"].values() if value is not None]) == 3


def test_a_byte_order_mark_in_the_class_list_changes_no_figure(weights, inputs, tmp_path):
    good, bom = (inputs / "voc_classes" / name for name in ("good.txt", "bom.txt"))
    one, other = (
        figures(weights, inputs / "voc_good", tmp_path / classes.stem, classes) for classes in (good, bom)
    )
    assert one == other


@pytest.mark.parametrize(
    ("data", "classes", "told"),
    [
        ("voc_bin255", "good.txt", "hold class 0 .'background'. and 255 alone.*write the other class as 1"),
        ("voc_val_latin", "good.txt", r"val.txt, line 2: is not UTF-8 \(byte 0xe4\)"),
        ("voc_good", "blankshift.txt", "line 2: is blank"),
        ("voc_good", "bg_last.txt", "'background' is class 2"),
    ],
)
def test_files_that_mean_something_else_are_said(weights, inputs, tmp_path, data, classes, told):
    with pytest.raises(UserError, match=told):
        figures(weights, inputs / data, tmp_path / "out", inputs / "voc_classes" / classes)


def test_masks_of_0_and_1_are_fine_with_fewer_classes_shown(weights, inputs, tmp_path):
    assert figures(weights, inputs / "voc_ids01", tmp_path, inputs / "voc_classes/good.txt")["images"] == 1


def test_photos_of_any_format_are_read_as_they_are(weights, inputs, tmp_path):
    """voc_pngimages holds PNG photos, not JPEGs' pixels: they are compared with copies without loss."""
    classes, data = inputs / "voc_classes/good.txt", tmp_path / "bmp"
    shutil.copytree(inputs / "voc_pngimages", data)
    for photo in list((data / "JPEGImages").iterdir()):
        Image.open(photo).save(photo.with_suffix(".bmp"))
        photo.unlink()
    expected = figures(weights, inputs / "voc_pngimages", tmp_path / "a", classes)
    assert figures(weights, data, tmp_path / "b", classes) == expected


@pytest.mark.parametrize(
    ("mode", "told"), [("RGB", "a picture in colours .mode RGB"), ("RGBA", "transparent pixels .mode RGBA")]
)
def test_masks_of_colours_are_named_with_what_to_save(weights, inputs, tmp_path, mode, told):
    data = tmp_path / "data"
    shutil.copytree(inputs / "voc_good", data)
    for mask in sorted((data / "SegmentationClass").iterdir()):
        ids = np.asarray(Image.open(mask))
        colours = np.stack([ids * 60, ids * 20, 255 - ids, np.minimum(ids, 1) * 255], axis=-1).astype(
            np.uint8
        )
        Image.fromarray(colours[..., : len(mode)]).save(mask)
    with pytest.raises(UserError, match=f"a1.png: .*{told}.*save the class numbers as one grey channel"):
        figures(weights, data, tmp_path / "out", inputs / "voc_classes/good.txt")


def test_two_photos_of_one_name_are_refused(weights, inputs, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(inputs / "voc_good", data)
    Image.open(data / "JPEGImages/a1.jpg").save(data / "JPEGImages/a1.png")
    with pytest.raises(UserError, match=r"'a1' is a1\.jpg and a1\.png; leave one of them"):
        figures(weights, data, tmp_path / "out", inputs / "voc_classes/good.txt")


def test_a_mask_that_is_not_there_is_named(weights, inputs, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(inputs / "voc_good", data)
    (data / "SegmentationClass/a2.png").unlink()
    with pytest.raises(UserError, match=r"SegmentationClass/a2\.\{png\}: mask missing; Own data needs"):
        figures(weights, data, tmp_path / "out", inputs / "voc_classes/good.txt")
