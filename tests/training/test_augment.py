from __future__ import annotations

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from timm.data import auto_augment
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import CenterCrop, RandomResizedCrop, Resize
from torchvision.transforms.functional import InterpolationMode

from models.pixels import MEAN, STD, normalise
from tests.training.rows import picture
from training.feed import augment
from training.feed.augment import Augmenter, AugmentOptions, crop_box, erase, image_seed


def augmenter(kind: str, size: int = 32, seed: int = 0) -> Augmenter:
    return Augmenter(AugmentOptions(kind, size, seed, MEAN, STD))


def seed_globals(seed: int) -> None:
    random.seed(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])


def keep_bits(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """timm's posterize, whose 0 bits Pillow 13 refuses."""
    return image.point(lambda value: value & ~((1 << (8 - bits)) - 1))


def test_recipe_is_timms_transforms_pixel_for_pixel(monkeypatch):
    """Crop, flip and RandAugment by timm's own objects on the same random numbers; no erasing."""
    monkeypatch.setattr(augment, "ERASE_PROBABILITY", 0.0)
    monkeypatch.setitem(auto_augment.NAME_TO_OP, "PosterizeIncreasing", keep_bits)
    ours, size = augmenter("recipe", 40, seed=3), 40
    crop = RandomResizedCropAndInterpolation(size, scale=(0.08, 1.0), interpolation="bicubic")
    fill = {"translate_const": int(size * 0.45), "img_mean": (124, 116, 104)}
    policy = rand_augment_transform(
        "rand-m9-mstd0.5-inc1", {**fill, "interpolation": Image.Resampling.BICUBIC}
    )
    changed = 0
    for number in range(300):
        image = picture(number, 70 + number % 50, 110 - number % 50)
        seed_globals(image_seed(3, 5, f"k{number}"))
        expected = crop(image)
        if random.random() < 0.5:
            expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        plain = np.asarray(expected)
        expected = np.asarray(policy(expected))
        np.testing.assert_array_equal(ours(image, f"k{number}", 5), expected)
        changed += not np.array_equal(plain, expected)
    assert changed > 150  # RandAugment did something: both of its two operations are left out in a quarter


@pytest.mark.parametrize("size", [(20, 400), (400, 20), (1, 1), (3, 2)])
def test_boxes_of_odd_images_are_timms_and_inside(size):
    image = Image.new("RGB", size)
    for seed in range(50):
        random.seed(seed)
        top, left, height, width = RandomResizedCropAndInterpolation.get_params(
            image, (0.08, 1.0), (3 / 4, 4 / 3)
        )
        box = crop_box(random.Random(seed), *size, (0.08, 1.0))
        assert 0 <= box[0] < box[2] <= size[0]
        assert 0 <= box[1] < box[3] <= size[1]
        if width and height:  # timm's may be empty on the smallest images
            assert box == (left, top, left + width, top + height)


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.5, 1.0)])
def test_boxes_are_distributed_as_torchvisions(scale):
    image, source = torch.empty(3, 200, 300), random.Random(0)
    torch.manual_seed(0)
    theirs = np.array([RandomResizedCrop.get_params(image, scale, (3 / 4, 4 / 3)) for _ in range(3000)])
    boxes = np.array([crop_box(source, 300, 200, scale) for _ in range(3000)])
    ours = np.stack([boxes[:, 1], boxes[:, 0], boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]], axis=1)
    for place in range(4):
        assert ks_2samp(ours[:, place], theirs[:, place]).pvalue > 0.001
    assert ks_2samp(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]).pvalue > 0.001


def test_without_augmentation_the_middle_square_is_kept():
    image = picture(1, 120, 90)
    expected = Resize(32, InterpolationMode.BICUBIC)(CenterCrop(90)(image))
    np.testing.assert_array_equal(augmenter("none")(image, "any", 0), np.asarray(expected))


def test_half_of_the_images_are_flipped():
    ramp = Image.fromarray(np.tile(np.arange(0, 250, 5, dtype=np.uint8)[None, :, None], (40, 1, 3)))
    light = augmenter("light", 8)
    flipped = np.mean([np.diff(light(ramp, f"{n}", 0)[4, :, 0].astype(int)).mean() < 0 for n in range(3000)])
    assert abs(flipped - 0.5) < 0.035  # nearly four standard deviations


def test_a_quarter_of_the_images_is_erased(monkeypatch):
    erased = []
    monkeypatch.setattr(augment, "erase", lambda *arguments: erased.append(erase(*arguments)))
    recipe, image = augmenter("recipe", 8), picture(0)
    for number in range(2000):
        recipe(image, str(number), 0)
    assert abs(len(erased) / 2000 - 0.25) < 0.04


def test_erased_rectangles_are_timms():
    theirs = RandomErasing(probability=1.0, mode="const", device="cpu")
    for seed in range(200):
        random.seed(seed)
        hole = theirs(torch.ones(3, 40, 56)).numpy()[0] == 0
        source, pixels = random.Random(seed), np.full((40, 56, 3), 7, np.uint8)
        source.random()  # timm's draw whether to erase
        erase(pixels, source, np.random.RandomState(seed), MEAN, STD)
        changed = (pixels != 7).any(axis=2)
        assert not changed[~hole].any()
        assert changed[hole].mean() > 0.9  # noise may hit the old value


def test_erased_pixels_are_standard_normal_after_normalisation():
    pixels, source, noise = np.full((400, 400, 3), 1, np.uint8), random.Random(4), np.random.RandomState(4)
    erase(pixels, source, noise, MEAN, STD)
    inside = (pixels != 1).all(axis=2)
    values = normalise(torch.from_numpy(pixels)[None])[0][:, torch.from_numpy(inside)]
    assert values.shape[1] > 3000
    assert values.mean().abs() < 0.05
    assert 0.93 < values.std() < 1.01  # cut off at black and white


@pytest.mark.parametrize("kind", ["recipe", "light"])
def test_pixels_depend_on_seed_epoch_and_key_alone(kind):
    image, one, other = picture(0), augmenter(kind), augmenter(kind)
    wanted = one(image, "a", 2)
    for key in ("b", "c", "d"):
        other(image, key, 7)
    np.testing.assert_array_equal(other(image, "a", 2), wanted)
    changed = [one(image, "b", 2), one(image, "a", 3), augmenter(kind, seed=1)(image, "a", 2)]
    assert all(not np.array_equal(pixels, wanted) for pixels in changed)


def test_augmenters_in_threads_do_not_disturb_each_other():
    pictures = [picture(number) for number in range(60)]

    def all_of_them(_: int) -> np.ndarray:
        own = augmenter("recipe")
        return np.stack([own(image, str(number), 0) for number, image in enumerate(pictures)])

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(all_of_them, range(8)))
    assert all(np.array_equal(result, results[0]) for result in results)


def test_global_generators_stay_as_they_are():
    seed_globals(5)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    recipe = augmenter("recipe")
    for number in range(50):
        recipe(picture(number), str(number), 0)
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.get_rng_state(), before[2])


def test_workers_import_neither_torch_nor_timm():
    code = (
        "import sys, training.feed.decode as d, training.feed.augment as a;"
        "a.Augmenter(a.AugmentOptions('recipe', 32, 0, (.5,) * 3, (.2,) * 3));"
        "print(sorted({'torch', 'timm', 'pyarrow', 'horovod'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
