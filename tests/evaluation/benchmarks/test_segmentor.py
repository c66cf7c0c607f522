"""The mmseg segmentor: pixels, several images of any sizes, batches; and the metric on masks counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

import evaluation.benchmarks.mmseg_import  # noqa: F401  (before mmseg)

# isort: split
import torch
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.models import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from evaluation.benchmarks.metric import ClassIoUMetric
from evaluation.benchmarks.segmentor import PixelPreprocessor
from evaluation.protocol import Protocol, best_classes, class_texts
from models.groupvit import GroupViT, GroupViTConfig
from tests.evaluation.decided import slide

PROMPTS = ["dog", "grass", "sky", "car", "table", "cat"]
PROTOCOL = Protocol(window=32, stride=16, background_threshold=0.9)
SIZES = [(40, 70), (32, 32), (25, 90), (64, 48)]


@pytest.fixture(scope="module")
def model() -> GroupViT:
    torch.manual_seed(1)
    model = GroupViT(GroupViTConfig.preset("tiny")).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "image_encoder" in name:
                parameter.mul_(8)
    return model


def build(model: GroupViT, max_windows: int = 32) -> BaseSegmentor:
    return MODELS.build({"type": "GroupViTSegmentor", "groupvit": model, "prompts": PROMPTS, "protocol": PROTOCOL,
                         "max_windows": max_windows})  # fmt: skip


def batch(sizes: list[tuple[int, int]], unreadable: int | None = None) -> dict:
    """What mmseg's loader gives: uint8 BGR images, and samples that know the size of the photo."""
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.integers(0, 256, (3, *size), np.uint8)) for size in sizes]
    samples = []
    for number, (height, width) in enumerate(sizes):
        meta = {"ori_shape": (height * 2, width + 9), "sample_idx": number, "img_path": f"{number}.jpg"}
        if number == unreadable:
            meta["unreadable"] = f"{number}.jpg: cut"
        samples.append(SegDataSample(metainfo=meta))
    return {"inputs": images, "data_samples": samples}


def test_it_is_a_registered_mmseg_segmentor(model):
    segmentor = build(model)
    assert isinstance(segmentor, BaseSegmentor)
    with pytest.raises(NotImplementedError):
        segmentor(torch.zeros(1, 3, 32, 32), [], mode="loss")


def test_pixels_are_normalised_red_green_blue_at_their_own_sizes():
    images = [torch.full((3, 4, 5), 0, dtype=torch.uint8), torch.zeros(3, 2, 2, dtype=torch.uint8)]
    images[0][0], images[0][1], images[0][2] = 30, 120, 250  # blue, green, red
    found = PixelPreprocessor()({"inputs": images, "data_samples": []})["inputs"]
    expected = [(250 / 255 - 0.485) / 0.229, (120 / 255 - 0.456) / 0.224, (30 / 255 - 0.406) / 0.225]
    assert [tuple(image.shape) for image in found] == [(3, 4, 5), (3, 2, 2)]
    assert found[0][:, 2, 3].tolist() == pytest.approx(expected, abs=1e-5)


def test_predictions_are_the_protocols_at_the_size_of_the_photo(model):
    data = batch(SIZES)
    found = build(model).test_step(data)
    texts = class_texts(model, PROMPTS)
    images = PixelPreprocessor()(batch(SIZES))["inputs"]
    for image, size, sample in zip(images, SIZES, found, strict=True):
        scores = slide(model, image, texts, 32, 16, 0.9)
        expected = best_classes(scores, (size[0] * 2, size[1] + 9))
        assert torch.equal(sample.pred_sem_seg.data, expected[None])
    assert len(torch.cat([sample.pred_sem_seg.data.flatten() for sample in found]).unique()) >= 3


@pytest.mark.parametrize("max_windows", [1, 3, 100])
def test_predictions_do_not_depend_on_batches_of_windows_or_images(model, max_windows):
    together = build(model, max_windows).test_step(batch(SIZES))
    data = batch(SIZES)
    for number, sample in enumerate(together):
        one = {"inputs": [data["inputs"][number]], "data_samples": [data["data_samples"][number]]}
        assert torch.equal(build(model, 1).test_step(one)[0].pred_sem_seg.data, sample.pred_sem_seg.data)


def test_an_unreadable_sample_is_not_looked_at_and_disturbs_no_other(model):
    data = batch(SIZES, unreadable=1)
    data["inputs"][1] = torch.zeros(3, 1, 1, dtype=torch.uint8)
    found, whole = build(model).test_step(data), build(model).test_step(batch(SIZES))
    assert not found[1].pred_sem_seg.data.any()
    for number in (0, 2, 3):
        assert torch.equal(found[number].pred_sem_seg.data, whole[number].pred_sem_seg.data)


# --- the metric --------------------------------------------------------------------------------------------


def measure(
    pairs: list[tuple[list, list]], ignore_index: int = 255, unreadable: tuple[int, ...] = ()
) -> dict:
    metric = ClassIoUMetric(ignore_index)
    metric.dataset_meta = {"classes": ("background", "dog", "cat", "sky")}
    for number, (truth, guess) in enumerate(pairs):
        sample = SegDataSample(metainfo={"sample_idx": number})
        if number in unreadable:
            sample.set_metainfo({"unreadable": f"{number}.jpg: cut"})
        sample.gt_sem_seg = PixelData(data=torch.tensor([truth]))
        sample.pred_sem_seg = PixelData(data=torch.tensor([guess]))
        metric.process({}, [sample.to_dict()])
    return {key.split("/")[1]: value for key, value in metric.evaluate(len(pairs)).items()}


def test_figures_by_hand():
    """background 2 of 3, dog 2 of 4, cat 1 of 3; sky nowhere: mIoU of three classes; 5 of 8 pixels right."""
    pairs = [([[0, 0, 1, 1]], [[0, 1, 1, 1]]), ([[2, 2, 1, 0]], [[2, 1, 2, 0]])]
    found = measure(pairs)
    # background: hit 2, truth 3, guessed 2 -> 2/3; dog: hit 2, truth 3, guessed 4 -> 2/5; cat: hit 1, 2, 2 -> 1/3
    assert found["classes"]["background"] == pytest.approx(100 * 2 / 3)
    assert found["classes"]["dog"] == pytest.approx(100 * 2 / 5)
    assert found["classes"]["cat"] == pytest.approx(100 * 1 / 3)
    assert math.isnan(found["classes"]["sky"])
    assert found["miou"] == pytest.approx(100 * (2 / 3 + 2 / 5 + 1 / 3) / 3)
    assert found["pixel_accuracy"] == pytest.approx(100 * 5 / 8)
    assert found["images"] == 2
    assert found["confusion"] == [
        [2, 1, 0, 0],
        [0, 2, 1, 0],
        [0, 1, 1, 0],
        [0, 0, 0, 0],
    ]  # a row a true class


@pytest.mark.parametrize("ignored", [255, 1000])
def test_ignored_pixels_count_neither_as_truth_nor_as_prediction(ignored):
    found = measure([([[0, 1, ignored, ignored]], [[0, 1, 1, 3]])], ignored)
    assert found["classes"] == pytest.approx(
        {"background": 100.0, "dog": 100.0, "cat": math.nan, "sky": math.nan}, nan_ok=True
    )
    assert found["pixel_accuracy"] == 100.0
    assert found["ignored_pixels"] == 2


def test_agrees_with_mmsegs_own_metric_on_random_masks():
    rng = np.random.default_rng(0)
    pairs = [
        (rng.choice([0, 1, 2, 3, 255], (9, 7)).tolist(), rng.integers(0, 4, (9, 7)).tolist())
        for _ in range(5)
    ]
    theirs = IoUMetric()
    theirs.dataset_meta = {"classes": ("background", "dog", "cat", "sky")}
    for truth, guess in pairs:
        theirs.process(
            {},
            [
                {
                    "gt_sem_seg": {"data": torch.tensor([truth])},
                    "pred_sem_seg": {"data": torch.tensor([guess])},
                }
            ],
        )
    expected, found = theirs.evaluate(5), measure(pairs)
    assert found["miou"] == pytest.approx(expected["mIoU"], abs=0.006)
    assert found["pixel_accuracy"] == pytest.approx(expected["aAcc"], abs=0.006)


def test_unreadable_samples_are_counted_and_named():
    pairs = [([[0, 1]], [[0, 1]]), ([[255, 255]], [[0, 0]]), ([[1, 1]], [[1, 0]])]
    found = measure(pairs, unreadable=(1,))
    assert (found["images"], found["unreadable"]) == (2, ["1.jpg: cut"])
    assert found["pixel_accuracy"] == pytest.approx(75.0)


def test_sums_are_exact_beyond_what_float32_can_count():
    metric = ClassIoUMetric()
    metric.dataset_meta = {"classes": ("a", "b")}
    rows, one = 2**12, torch.zeros(1, 1, 1, dtype=torch.int64)
    many = torch.zeros(1, rows, rows + 1, dtype=torch.int64)  # 2**24 + 2**12 pixels
    for number, (truth, guess) in enumerate([(many, many), (one, one), (one, one + 1), (one + 1, one + 1)]):
        data = {"gt_sem_seg": {"data": truth}, "pred_sem_seg": {"data": guess}, "sample_idx": number}
        metric.process({}, [data])
    found = metric.compute_metrics(metric.results)
    pixels = 2**24 + 2**12
    assert found["confusion"] == [[pixels + 1, 1], [0, 1]]
    assert found["classes"] == {"a": 100 * (pixels + 1) / (pixels + 2), "b": 50.0}
    assert found["pixel_accuracy"] == 100 * (pixels + 2) / (pixels + 3)
