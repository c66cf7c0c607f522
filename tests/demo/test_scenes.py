import numpy as np
import pytest

from demo.world.scenes import GROUND_LABELS, LABELS, MINIMUM_SHARE, THINGS, make_scene


@pytest.fixture(scope="module")
def scenes():
    return [make_scene((41, number)) for number in range(120)]


def test_there_are_enough_kinds_of_things_and_grounds():
    assert len(THINGS) >= 24
    assert len(GROUND_LABELS) >= 8
    assert len(set(LABELS)) == len(LABELS) < 255


def test_every_label_appears(scenes):
    seen = {label for number in range(400, 700) for label in make_scene((41, number), (96, 96)).areas}
    assert seen | {label for scene in scenes for label in scene.areas} == set(LABELS)


def test_the_same_seed_draws_the_same_bytes_and_another_one_does_not():
    first, again, other = make_scene((5, 1)), make_scene((5, 1)), make_scene((5, 2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert first.image.shape != other.image.shape or (first.image != other.image).any()


def test_sizes_vary_and_are_not_all_square(scenes):
    shapes = {scene.mask.shape for scene in scenes}
    assert len(shapes) > 60
    assert all(160 <= side <= 224 for shape in shapes for side in shape)
    assert all(
        scene.image.shape == (*scene.mask.shape, 3) and scene.image.dtype == np.uint8 for scene in scenes
    )


def test_areas_are_the_masks_pixel_counts(scenes):
    for scene in scenes:
        names, pixels = np.unique(scene.mask, return_counts=True)
        counted = {
            LABELS[i]: int(n)
            for i, n in zip(names, pixels, strict=True)
            if n >= MINIMUM_SHARE * scene.mask.size
        }
        assert scene.areas == counted
        assert set(scene.counts) == set(counted)
        assert min(scene.counts.values()) >= 1


def test_masks_lie_on_what_is_drawn():
    """The picture changes at the mask's borders: the colour step across them is well above that elsewhere."""
    ratios = []
    for number in range(40):
        scene = make_scene((43, number))
        step = np.abs(np.diff(scene.image.astype(np.float64), axis=1)).mean(2)
        border = np.diff(scene.mask.astype(int), axis=1) != 0
        ratios.append(step[border].mean() / step[~border].mean())
    assert np.mean(ratios) > 3
    assert np.quantile(ratios, 0.1) > 1.5


def test_scenes_hold_several_things_of_different_sizes(scenes):
    things = [
        [scene.areas[name] / scene.mask.size for name in scene.areas if name in THINGS] for scene in scenes
    ]
    assert np.mean([len(shares) for shares in things]) > 2.5
    shares = np.concatenate([np.array(s) for s in things])
    assert np.quantile(shares, 0.1) < 0.015
    assert np.quantile(shares, 0.9) > 0.1


def test_things_keep_the_company_they_keep_in_life(scenes):
    small = [make_scene((44, number), (64, 64)) for number in range(300)]

    def share_with(thing, ground):
        with_thing = [scene for scene in small if thing in scene.areas]
        assert len(with_thing) >= 10
        return np.mean([ground in s.areas for s in with_thing])

    assert share_with("boat", "water") > 0.9
    assert share_with("clock", "wall") > 0.9
    assert share_with("cactus", "sand") > 0.9


def test_one_look_differs_from_another():
    """The same kind never has one fixed colour: its mean colour spreads over scenes."""
    means = []
    for number in range(300):
        scene = make_scene((45, number), (96, 96))
        inside = scene.mask == LABELS.index("car")
        if inside.sum() > 60:
            means.append(scene.image[inside].mean(0))
    assert len(means) >= 15
    assert np.std(means, axis=0).min() > 20
