"""Oracle naming and tagging against the definition, pixel by pixel and class by class."""

import numpy as np
import pytest

from experiment.diagnosis import oracle_confusion, tagging_map


@pytest.mark.parametrize("seed", range(20))
def test_oracle_names_each_segment_by_its_majority(seed):
    rng = np.random.default_rng(seed)
    classes, height, width = 6, 17, 23
    mask = rng.integers(0, classes, (height, width)).astype(np.uint8)
    mask[rng.random((height, width)) < 0.1] = 255
    segments = rng.integers(0, 4, (height, width))
    expected = np.zeros((classes, classes), np.int64)
    for group in range(4):
        inside = [int(mask[y, x]) for y in range(height) for x in range(width) if segments[y, x] == group]
        inside = [label for label in inside if label != 255]
        if inside:
            counts = [inside.count(label) for label in range(classes)]
            name = counts.index(max(counts))
            for label in inside:
                expected[label, name] += 1
    assert np.array_equal(oracle_confusion(mask, segments, classes), expected)


def test_perfect_segments_are_named_perfectly():
    mask = np.array([[0, 0, 1], [2, 2, 1]], np.uint8)
    confusion = oracle_confusion(mask, np.array([[5, 5, 3], [0, 0, 3]]), 3)
    assert np.array_equal(confusion, np.diag([2, 2, 2]))


def naive_average_precision(scores, shown):
    order = np.argsort(-scores, kind="stable")
    hits, total = 0, 0.0
    for place, image in enumerate(order, 1):
        if shown[image]:
            hits += 1
            total += hits / place
    return total / hits


def test_tagging_is_the_mean_average_precision_of_classes_that_tell():
    rng = np.random.default_rng(3)
    scores, shown = rng.random((40, 7)), rng.random((40, 7)) < 0.3
    shown[:, 2], shown[:, 5] = False, True  # on no image, on every image: nothing to tell
    expected = np.mean([naive_average_precision(scores[:, c], shown[:, c]) for c in (0, 1, 3, 4, 6)])
    assert tagging_map(scores, shown) == pytest.approx(expected, abs=1e-12)


def test_tagging_without_a_telling_class_is_no_number():
    assert np.isnan(tagging_map(np.ones((3, 1)), np.ones((3, 1), bool)))
