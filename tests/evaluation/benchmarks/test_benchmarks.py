"""What the benchmarks are: the protocol's table, their classes, and layouts that are checked before anything runs."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import evaluation.benchmarks.mmseg_import  # noqa: F401  (before mmseg)
from configs.errors import UserError
from curation.text.vocabulary import benchmark_classes
from evaluation.benchmarks.catalogue import (
    ALL,
    NAMES,
    VARIANTS,
    load_benchmark,
    scaled,
    select_benchmarks,
)
from evaluation.benchmarks.layout import check_layout
from evaluation.benchmarks.runs import class_names
from evaluation.class_lists import check_class_names
from evaluation.class_names import imagenet_s_names, prompt_names
from tests.evaluation.benchmarks.layouts import make_layout

# method.md section 4: images, classes with background, short side, window, stride, threshold
TABLE = {
    "voc": (1449, 21, 448, 448, 224, 0.95),
    "context": (5104, 60, 448, 448, 224, 0.35),
    "coco_object": (5000, 81, 448, 448, 224, 0.95),
    "imagenet_s_50": (752, 51, 448, 448, 224, 0.95),
    "imagenet_s_300": (4097, 301, 448, 448, 224, 0.75),
    "cityscapes": (500, 19, 1024, 448, 224, None),
    "ade20k": (2000, 150, 512, 224, 112, None),
    "coco_stuff": (5000, 171, 512, 224, 112, None),
    "voc20": (1449, 20, 448, 448, 224, None),
    "context59": (5104, 59, 448, 448, 224, None),
}


# method.md, below its table: the names in the prompts, copied from there and not from this project's own lists
VOC_PROMPTS = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow table dog horse motorbike person plant sheep sofa train "
    "monitor"
).split()
CONTEXT_RENAMED = {"aeroplane": "airplane", "pottedplant": "plant", "tvmonitor": "monitor"}

# the class folders of ImageNet-S-50, as its authors publish them (data/names/ImageNetSemi_im50_train.txt)
IMAGENET_S_50 = (
    "n01443537 n01491361 n01531178 n01644373 n02104029 n02119022 n02123597 n02133161 n02165456 n02281406 "
    "n02325366 n02342885 n02396427 n02483362 n02504458 n02510455 n02690373 n02747177 n02783161 n02814533 "
    "n02859443 n02917067 n02992529 n03014705 n03047690 n03095699 n03197337 n03201208 n03445777 n03452741 "
    "n03584829 n03630383 n03775546 n03791053 n03874599 n03891251 n04026417 n04335435 n04380533 n04404412 "
    "n04447861 n04507155 n04522168 n04557648 n04562935 n04612504 n06794110 n07749582 n07831146 n12998815 "
).split()


@pytest.mark.parametrize("name", TABLE)
def test_protocol_is_the_tables(name, tmp_path):
    make_layout(tmp_path, name)
    benchmark = check_layout(load_benchmark(name), tmp_path, partial=True)
    images, classes, *sides, threshold = TABLE[name]
    protocol = benchmark.protocol
    assert benchmark.images == images
    assert [protocol.short_side, protocol.window, protocol.stride] == sides
    assert protocol.background_threshold == threshold
    assert (protocol.top, protocol.template) == (5, "a photo of a {}.")
    names = class_names(benchmark)
    assert len(names) == classes
    assert (names[0] == "background") == (threshold is not None)


def test_all_means_the_eight_of_the_paper():
    assert set(ALL) | set(VARIANTS) == set(TABLE)
    assert [benchmark.name for benchmark in select_benchmarks("ade20k, all,voc20")] == [
        "ade20k", "voc", "context", "coco_object", "imagenet_s_50", "imagenet_s_300", "cityscapes", "coco_stuff", "voc20",
    ]  # fmt: skip
    assert "folder" in NAMES


@pytest.mark.parametrize("name", [*ALL, *VARIANTS])
def test_prompts_are_the_words_that_curation_holds_out(name, tmp_path):
    """What is asked for here and what ``concepts.hold_out`` keeps out of the vocabulary must be one list."""
    make_layout(tmp_path, name)
    found = prompt_names(name, class_names(check_layout(load_benchmark(name), tmp_path, partial=True)))
    listed = {
        "imagenet_s_50": "imagenet_s50",
        "imagenet_s_300": "imagenet_s300",
        "voc20": "voc",
        "context59": "context",
    }
    expected = [entry.strip() for entry in benchmark_classes()[listed.get(name, name)]]
    assert found == expected
    check_class_names(found, name)


def test_prompts_are_the_methods_words():
    from mmseg.datasets import COCOStuffDataset, PascalContextDataset, PascalVOCDataset

    voc, context, stuff = (
        dataset.METAINFO["classes"] for dataset in (PascalVOCDataset, PascalContextDataset, COCOStuffDataset)
    )
    assert prompt_names("voc", voc) == prompt_names("voc20", voc[1:]) == VOC_PROMPTS
    expected = [CONTEXT_RENAMED.get(name, name) for name in context[1:]]
    assert prompt_names("context", context) == prompt_names("context59", context[1:]) == expected
    assert prompt_names("coco_object", ["background", *stuff[:80]]) == list(stuff[:80])
    assert prompt_names("folder", ["background", "diningtable"]) == ["diningtable"]


@pytest.mark.parametrize("count", [50, 300])
def test_imagenet_s_names_are_first_lemmas_in_the_order_of_their_synsets(count):
    """timm ships ImageNet's synsets with their lemmas; masks number the classes by rising synset."""
    folder = resources.files("timm.data").joinpath("_info")
    lemmas = dict(
        line.split("\t") for line in folder.joinpath("imagenet_synset_to_lemma.txt").read_text().splitlines()
    )
    synsets = sorted(folder.joinpath("imagenet_synsets.txt").read_text().split())
    first = [(synset, lemmas[synset].split(",")[0].lower()) for synset in synsets]
    place = 0
    for name in imagenet_s_names(count):
        while first[place][1] != name:  # IndexError: the name is no lemma, or out of order
            place += 1
        place += 1


def test_imagenet_s_50_folders_in_the_order_of_the_masks_have_these_names(tmp_path):
    """Masks number the classes by rising folder; each folder's synset must have the class's name among its lemmas."""
    folder = resources.files("timm.data").joinpath("_info")
    listed = (
        line.split("\t") for line in folder.joinpath("imagenet_synset_to_lemma.txt").read_text().splitlines()
    )
    lemmas = {synset: words.split(",") for synset, words in listed}
    for synset in IMAGENET_S_50:
        (tmp_path / synset).mkdir()
    names = imagenet_s_names(50)
    folders = sorted(path.name for path in tmp_path.iterdir())
    for name, synset in zip(names, folders, strict=True):
        assert name == lemmas[synset][0].lower(), synset


def test_sides_follow_the_models_image_size():
    protocol = load_benchmark("ade20k").protocol
    assert scaled(protocol, 224) == protocol
    half = scaled(protocol, 112)
    assert (half.short_side, half.window, half.stride, half.long_side) == (256, 112, 56, 1024)
    assert half.background_threshold is None


@pytest.mark.parametrize(
    ("name", "told"), [("vok", "did you mean 'voc'"), ("coco-stuff", "did you mean 'coco_stuff'")]
)
def test_unknown_benchmark_names_the_nearest(name, told):
    with pytest.raises(UserError, match=told):
        select_benchmarks(f"voc,{name}")


def test_no_benchmark_is_an_error():
    with pytest.raises(UserError, match="empty"):
        select_benchmarks(" , ")


def test_masks_arrive_with_mmsegs_rules_and_wide_ids(tmp_path):
    from evaluation.benchmarks.datasets import LoadMask
    from tests.evaluation.benchmarks.layouts import save_mask

    path = tmp_path / "mask.png"
    raw = np.array([[0, 1, 20], [255, 2, 3]])
    save_mask(path, raw)
    sample = {
        "seg_map_path": str(path),
        "ori_shape": (2, 3),
        "reduce_zero_label": False,
        "label_map": None,
        "seg_fields": [],
    }

    def read(classes: int, ignore: int = 255, wide: bool = False, **changes: object) -> np.ndarray:
        found = LoadMask(classes, ignore, wide).transform({**sample, **changes, "seg_fields": []})
        assert "unreadable" not in found, found["unreadable"]
        return found["gt_seg_map"]

    assert np.array_equal(read(21), raw)
    assert read(20, reduce_zero_label=True).tolist() == [[255, 0, 19], [255, 1, 2]]
    without_background = {0: 255, **{n: n - 1 for n in range(1, 21)}}
    assert read(20, label_map=without_background).tolist() == [[255, 0, 19], [255, 1, 2]]
    wide = np.array([[0, 300, 1000], [256, 255, 44]])
    save_mask(path, wide, wide=True)
    assert np.array_equal(read(301, 1000, wide=True), wide)
    assert (
        LoadMask(300, 1000, wide=True)
        .transform({**sample, "seg_fields": []})["unreadable"]
        .endswith("the mask has ids 300, and the benchmark 300 classes")
    )


def test_mmseg_reads_the_same_masks(tmp_path):
    """Ours against mmseg's own LoadAnnotations, for the rules both have."""
    from mmseg.datasets.transforms import LoadAnnotations

    from evaluation.benchmarks.datasets import LoadMask

    for name in ("voc", "ade20k", "voc20", "context59", "cityscapes"):
        root = tmp_path / name
        for _, mask in make_layout(root, name):
            dataset = _dataset(name, root)
            info = {"seg_map_path": str(mask), "ori_shape": _shape(mask), "seg_fields": [],
                    "label_map": dataset.label_map, "reduce_zero_label": dataset.reduce_zero_label}  # fmt: skip
            theirs = LoadAnnotations().transform({**info, "seg_fields": []})["gt_seg_map"]
            ours = LoadMask(len(dataset.metainfo["classes"])).transform(info)
            assert "unreadable" not in ours
            assert np.array_equal(ours["gt_seg_map"], theirs), name


def _dataset(name: str, root: Path):
    from mmseg.registry import DATASETS

    return DATASETS.build(
        {**check_layout(load_benchmark(name), root, partial=True).dataset, "lazy_init": True}
    )


def _shape(path: Path) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path) as image:
        return image.size[::-1]
