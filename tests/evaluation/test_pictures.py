"""Colours over photos: told apart, the same in every command, named in the legend."""

import numpy as np

from evaluation.pictures import blend, class_palette, colours, comparison, with_legend

CLASSES = ["background", "dog", "blue sky", "boat"]


def pixels_of(picture, colour):
    return (np.asarray(picture) == colour).all(axis=-1).sum()


def test_colours_of_sixty_classes_can_be_told_apart():
    palette = colours(60).astype(int)
    distances = np.abs(palette[:, None] - palette).sum(-1) + 1000 * np.eye(60, dtype=int)
    assert distances.min() > 12


def test_the_background_is_black_and_takes_no_colour_from_the_others():
    assert class_palette(CLASSES)[0].tolist() == [0, 0, 0]
    assert np.array_equal(class_palette(CLASSES)[1:], class_palette(CLASSES[1:]))


def test_labels_without_a_colour_leave_the_photo():
    photo = np.full((1, 4, 3), 100, np.uint8)
    labels = np.array([[0, 1, 255, 2]])
    palette = np.array([[0, 0, 0], [200, 0, 50]], np.uint8)
    assert blend(photo, labels, palette, [0]).tolist() == [[[100] * 3, [160, 40, 70], [100] * 3, [100] * 3]]


def test_a_legend_has_all_names_even_under_a_narrow_picture():
    entries = [(name, colour) for name, colour in zip(CLASSES, colours(4), strict=True)]
    drawn = with_legend(np.full((20, 4, 3), 255, np.uint8), entries)
    assert all(pixels_of(drawn, colour) > 50 for colour in colours(4))


def test_a_comparison_names_what_truth_or_prediction_hold_and_nothing_else():
    photo = np.full((40, 60, 3), 255, np.uint8)
    truth, guess = np.zeros((40, 60), int), np.full((40, 60), 255)
    truth[:20], guess[:5] = 1, 3
    drawn = comparison(photo, truth, guess, CLASSES)
    _, dog, sky, boat = class_palette(CLASSES)
    assert drawn.width >= 3 * 60
    assert pixels_of(drawn, dog) > 50
    assert pixels_of(drawn, boat) > 50
    assert pixels_of(drawn, sky) == 0
    seen = np.asarray(drawn)[drawn.height // 3, :180]
    assert (seen[60:120] != seen[:60]).any()  # the truth is laid over its own panel alone
    assert np.array_equal(seen[120:], seen[:60])
