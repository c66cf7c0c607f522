"""The protocol against a plain and slow one in NumPy, against mmseg's sliding window, and against HF's segmentation."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from evaluation.protocol import (
    ImageScores,
    Protocol,
    apply_background,
    best_classes,
    class_texts,
    encode_windows,
    group_maps,
    resize_short_side,
    slide_images,
)
from models.groupvit import GroupViT, GroupViTConfig, with_rounded_weights
from tests.evaluation.decided import decided_model, near_texts, picture, slide, window_scores
from tests.models.hf_reference import SMALL, pair, tokens

PATCH = 8


@pytest.fixture(scope="module")
def model() -> GroupViT:
    return decided_model()


@pytest.fixture(scope="module")
def texts(model: GroupViT) -> torch.Tensor:
    return near_texts(model, 9)


# --- the slow protocol -------------------------------------------------------------------------------------


def slow_bilinear(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h, w) -> (height, width): pixel centres at half integers, borders repeated."""
    result = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            v = max((y + 0.5) * plane.shape[0] / height - 0.5, 0.0)
            u = max((x + 0.5) * plane.shape[1] / width - 0.5, 0.0)
            y0, x0 = int(v), int(u)
            y1, x1 = min(y0 + 1, plane.shape[0] - 1), min(x0 + 1, plane.shape[1] - 1)
            upper = plane[y0, x0] * (1 - (u - x0)) + plane[y0, x1] * (u - x0)
            lower = plane[y1, x0] * (1 - (u - x0)) + plane[y1, x1] * (u - x0)
            result[y, x] = upper * (1 - (v - y0)) + lower * (v - y0)
    return result


def slow_softmax(values: dict[int, float]) -> dict[int, float]:
    highest = max(values.values())
    powers = {key: np.exp(value - highest) for key, value in values.items()}
    return {key: power / sum(powers.values()) for key, power in powers.items()}


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.sqrt(one @ one) / np.sqrt(other @ other))


def slow_window(
    model: GroupViT, window: np.ndarray, texts: np.ndarray, threshold: float | None, top: int
) -> np.ndarray:
    """(3, h, w) -> (C or C + 1, h, w), as method.md section 4 words it."""
    height, width = window.shape[1:]
    sides = [max(1, round(side / PATCH)) * PATCH for side in (height, width)]
    fitted = (
        window if sides == [height, width] else np.stack([slow_bilinear(plane, *sides) for plane in window])
    )
    with torch.no_grad():
        features = model.encode_image(torch.from_numpy(fitted)[None], with_maps=True)
    first, second = (part[0].numpy() for part in features.assignments)
    rows, columns = sides[0] // PATCH, sides[1] // PATCH
    maps = np.stack([slow_bilinear(plane.reshape(rows, columns), height, width) for plane in second @ first])
    scale = min(float(model.logit_scale.detach().exp()), 100.0)
    pooled = features.pooled[0].numpy()
    kept = sorted(range(len(texts)), key=lambda c: -cosine(pooled, texts[c]))[:top]
    scores = np.zeros((len(maps), len(texts)))
    for segment, vector in enumerate(features.segments[0].numpy()):
        logits = {c: scale * cosine(vector, texts[c]) for c in range(len(texts))}
        over_all, over_kept = slow_softmax(logits), slow_softmax({c: logits[c] for c in kept})
        for c in kept:
            scores[segment, c] = over_all[c] * over_kept[c]
    background = 0 if threshold is None else 1
    result = np.zeros((len(texts) + background, height, width))
    for y in range(height):
        for x in range(width):
            segment = int(maps[:, y, x].argmax())
            result[background:, y, x] = scores[segment]
            if threshold is not None and scores[segment].max() < min(threshold, scores.max()):
                result[0, y, x] = 1.0
    return result


def slow_starts(length: int, window: int, stride: int) -> list[int]:
    starts, start = [], 0
    while start + window < length:
        starts.append(start)
        start += stride
    return [*starts, max(length - window, 0)]


def slow_image(
    model: GroupViT,
    image: np.ndarray,
    texts: np.ndarray,
    window: int,
    stride: int,
    threshold: float | None,
    top: int = 5,
) -> np.ndarray:
    height, width = image.shape[1:]
    total, hits = 0.0, np.zeros((height, width))
    for y in slow_starts(height, window, stride):
        for x in slow_starts(width, window, stride):
            part = image[:, y : y + window, x : x + window]
            found = slow_window(model, part, texts, threshold, top)
            canvas = np.zeros((len(found), height, width))
            canvas[:, y : y + window, x : x + window] = found
            total = total + canvas
            hits[y : y + window, x : x + window] += 1
    return total / hits


def slow_labels(scores: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.stack([slow_bilinear(plane, height, width) for plane in scores]).argmax(axis=0)


# --- claims ------------------------------------------------------------------------------------------------

SIZES = [
    pytest.param((64, 64), (80, 90), 48, 24, id="windows-overlap"),
    pytest.param((48, 48), (48, 48), 48, 24, id="one-window"),
    pytest.param((53, 71), (67, 90), 48, 24, id="no-multiple-of-a-patch"),
    pytest.param((30, 77), (60, 154), 48, 24, id="lower-than-a-window"),
    pytest.param((21, 19), (40, 40), 48, 24, id="smaller-than-a-window"),
    pytest.param((3, 50), (3, 50), 48, 24, id="lower-than-a-patch"),
    pytest.param((61, 61), (61, 61), 36, 20, id="window-no-multiple-of-a-patch"),
]


@pytest.mark.parametrize("threshold", [None, 0.95, 0.3])
@pytest.mark.parametrize(("size", "original", "window", "stride"), SIZES)
def test_labels_equal_the_slow_protocol_pixel_for_pixel(
    model, texts, size, original, window, stride, threshold
):
    image = picture(*size)
    expected = slow_image(model, image.numpy(), texts.numpy(), window, stride, threshold)
    found = slide(model, image, texts, window, stride, threshold)
    np.testing.assert_allclose(found.dense(len(expected)).numpy(), expected, rtol=1e-9, atol=1e-12)
    labels = best_classes(found, original).numpy()
    assert np.array_equal(labels, slow_labels(expected, *original))


@pytest.mark.parametrize("threshold", [None, 0.95, 0.3])
def test_the_comparison_has_several_segments_classes_and_background_to_tell_apart(model, texts, threshold):
    image = picture(64, 64)
    assert len(encode_windows(model, image[None], texts).segments.unique()) >= 2
    kinds, counts = best_classes(slide(model, image, texts, 48, 24, threshold), (80, 90)).unique(
        return_counts=True
    )
    assert len(kinds) >= 3
    assert counts.max() < 0.8 * 80 * 90
    assert (0 in kinds) == (threshold is not None)


@pytest.mark.parametrize(("classes", "top"), [(3, 5), (9, 1), (9, 2), (30, 5)])
def test_any_number_of_classes_and_of_kept_ones(model, classes, top):
    image, texts = picture(48, 60, seed=2), near_texts(model, classes)
    expected = slow_image(model, image.numpy(), texts.numpy(), 48, 24, 0.5, top)
    found = slide(model, image, texts, 48, 24, 0.5, top=top)
    np.testing.assert_allclose(found.dense(len(expected)).numpy(), expected, rtol=1e-9, atol=1e-12)


def test_window_scores_are_those_of_one_window(model, texts):
    windows = torch.stack([picture(48, 40, seed) for seed in range(3)])
    found = window_scores(model, windows, texts)
    assert found.shape == (3, 9, 48, 40)
    for window, scores in zip(windows, found, strict=True):
        np.testing.assert_allclose(
            scores, slow_window(model, window.numpy(), texts.numpy(), None, 5), rtol=1e-9
        )


def test_windows_equal_those_of_mmsegs_sliding_inference(model, texts):
    from evaluation.benchmarks.mmseg_import import import_mmseg

    import_mmseg()
    from mmseg.models import EncoderDecoder

    image = picture(75, 131)
    theirs = SimpleNamespace(
        test_cfg=SimpleNamespace(stride=(24, 24), crop_size=(48, 48)),
        out_channels=len(texts),
        encode_decode=lambda crop, _: window_scores(model, crop, texts),
    )
    expected = EncoderDecoder.slide_inference(theirs, image[None], [{}])[0]
    found = slide(model, image, texts, 48, 24).dense(len(texts))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("max_windows", [1, 2, 7, 1000])
def test_scores_do_not_depend_on_the_batch(model, texts, max_windows):
    """float64: the sums of a matrix product may be taken in another order, no more."""
    images = [picture(64, 90, 1), picture(48, 48, 2), picture(70, 50, 3), picture(20, 90, 4)]
    protocol = Protocol(window=48, stride=24, background_threshold=0.9)
    together = list(slide_images(model, images, texts, protocol, max_windows))
    alone = [slide(model, image, texts, 48, 24, 0.9, max_windows=1) for image in images]
    for one, other, image in zip(together, alone, images, strict=True):
        torch.testing.assert_close(one.dense(10), other.dense(10), rtol=1e-10, atol=1e-13)
        size = (image.shape[1] + 13, image.shape[2] + 7)
        assert torch.equal(best_classes(one, size), best_classes(other, size))


def test_float32_labels_differ_between_batches_at_near_ties_only(texts):
    """Rounding of 1e-6 may turn a pixel whose best two scores are as near as that, and no other."""
    model = decided_model(torch.float32)
    image, texts = picture(150, 170).float(), texts.float()
    one = slide(model, image, texts, 48, 24, 0.9, max_windows=1)
    other = slide(model, image, texts, 48, 24, 0.9, max_windows=64)
    differing = best_classes(one, (150, 170)) != best_classes(other, (150, 170))
    best = one.dense(10).topk(2, dim=0).values
    assert not (differing & (best[0] - best[1] > 1e-4)).any()
    assert differing.float().mean() < 1e-3


def test_bfloat16_is_near(texts):
    model = decided_model(torch.float32)
    one, other = (in_precision(model, texts, dtype).dense(9) for dtype in (None, torch.bfloat16))
    assert other.dtype == torch.float32
    assert not torch.equal(one, other)
    assert (one.argmax(dim=0) == other.argmax(dim=0)).float().mean() > 0.8


def test_weights_rounded_before_give_what_autocast_gives(texts):
    model = decided_model(torch.float32)
    rounded = with_rounded_weights(model, torch.bfloat16)
    one, other = (in_precision(each, texts, torch.bfloat16) for each in (model, rounded))
    assert torch.equal(one.classes, other.classes)
    assert torch.equal(one.values, other.values)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert rounded.image_encoder.stages[0].blocks[0].mlp.fc1.weight.dtype == torch.bfloat16


def in_precision(model: GroupViT, texts: torch.Tensor, dtype: torch.dtype | None) -> ImageScores:
    images = [picture(90, 100).float()]
    return next(slide_images(model, images, texts.float(), Protocol(window=48, stride=24), dtype=dtype))


def test_background_rule_by_hand():
    scores = torch.tensor([[[0.2, 0.6, 0.5]], [[0.1, 0.3, 0.55]]]).transpose(
        0, 1
    )  # one window, 2 classes, 3 pixels
    high = apply_background(
        scores, torch.tensor([0.6]), 0.95
    )  # threshold above the best: only the best stays
    assert high[0, 0].tolist() == [1.0, 0.0, 1.0]
    low = apply_background(scores, torch.tensor([0.6]), 0.4)
    assert low[0, 0].tolist() == [1.0, 0.0, 0.0]
    assert torch.equal(low[:, 1:], scores)


def test_best_classes_first_of_equals_and_class_zero_where_nothing_scores():
    scores = torch.zeros(3, 2, 2)
    scores[0, 0, 0] = scores[1, 0, 0] = 0.5
    scores[2, 1, 1] = 0.2
    sparse = ImageScores(torch.tensor([3, 9, 11]), scores)
    assert best_classes(sparse, (2, 2)).tolist() == [[3, 0], [0, 11]]
    assert torch.equal(sparse.dense(13)[[3, 9, 11]], scores)
    assert sparse.dense(13).sum() == scores.sum()


@pytest.mark.parametrize("classes", [37, 300])  # more than a byte tells apart
def test_best_classes_are_those_of_the_resized_scores(classes):
    random = torch.rand(classes, 9, 11, generator=torch.Generator().manual_seed(0))
    resized = torch.nn.functional.interpolate(random[None], (20, 33), mode="bilinear")[0]
    found = best_classes(ImageScores(torch.arange(classes), random), (20, 33))
    assert found.dtype == torch.int64
    assert torch.equal(found, resized.argmax(dim=0))


def test_hf_segmentation_agrees_up_to_its_documented_differences():
    """HF: soft maps times plain logits, the scale applied twice, no class filter, no product of softmaxes."""
    reference, ours = pair(SMALL, seed=7, dtype=torch.float64)
    images, words = torch.stack([picture(48, 48, 1), picture(48, 48, 2)]), tokens(6, 18, 120, seed=1)
    with torch.no_grad():
        theirs = reference(input_ids=words, pixel_values=images, output_segmentation=True)
        features = ours.encode_image(images)
        texts = torch.nn.functional.normalize(ours.encode_text(words), dim=-1)
        maps = group_maps(features, (48, 48))
        logits = torch.nn.functional.normalize(features.segments, dim=-1) @ texts.T * ours.scales().caption
        expected = torch.einsum("bgc,bghw->bchw", logits, maps) * ours.scales().caption
    torch.testing.assert_close(expected, theirs.segmentation_logits, rtol=1e-8, atol=1e-8)
    nearness = torch.nn.functional.normalize(features.pooled, dim=-1) @ texts.T * ours.scales().caption
    torch.testing.assert_close(nearness, theirs.logits_per_image, rtol=1e-8, atol=1e-8)
    found = encode_windows(ours, images, texts, top=6)
    # where a segment holds a pixel whole, the best class of its logits is the best of the product of softmaxes
    best = logits.argmax(dim=-1).gather(1, found.segments.flatten(1)).unflatten(1, (48, 48))
    scores = found.scores.gather(1, found.segments.flatten(1)[..., None].expand(-1, -1, 6)).unflatten(
        1, (48, 48)
    )
    assert torch.equal(scores.argmax(dim=-1), best)


def test_class_texts_are_those_of_the_template_and_unit_rows():
    from models.tokenize import tokenize

    torch.manual_seed(0)
    model = GroupViT(GroupViTConfig.preset("tiny")).eval()
    found = class_texts(model, ["dog", "traffic light"])
    sentences = ["a photo of a dog.", "a photo of a traffic light."]
    with torch.no_grad():
        expected = model.encode_text(tokenize(sentences, model.config.context_length))
    expected = expected / expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(found, expected)
    many = class_texts(model, [f"thing {n}" for n in range(300)])
    torch.testing.assert_close(many[299:], class_texts(model, ["thing 299"]))


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (30, 40), (101, 3000), (1024, 2048)])
def test_resizing_is_mmcvs(size):
    import mmcv

    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert np.array_equal(resize_short_side(image, 448), mmcv.imrescale(image, (2048, 448)))
