"""What is done to an image's pixels before a step sees them (method, section 3: the recipe's augmentation).

Every image's augmentation is a function of (seed, epoch, key) alone. Nothing here imports torch or touches
the global generators of ``random`` and NumPy: decoding processes start in a tenth of a second, and the
training process' own random state stays what a checkpoint says it is.

RandAugment is timm's. Its module needs only Pillow and NumPy, but its package imports torch; so the module is
loaded by its file, a copy for each :class:`Augmenter`, and draws from generators of that augmenter.
Crop and erasing follow timm draw by draw (tests/training/test_augment.py compares them); timm's own are tied
to torch's tensors.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
from PIL import Image, ImageOps

__all__ = ["GREY", "KINDS", "AugmentOptions", "Augmenter", "centre_box", "crop_box", "erase", "image_seed"]

KINDS = ("recipe", "light", "none")
GREY = 128
"""Value of every pixel of an image that stands for one that cannot be decoded."""

RAND_AUGMENT = "rand-m9-mstd0.5-inc1"
FLIP_PROBABILITY = 0.5
ERASE_PROBABILITY = 0.25
_SCALES = {"recipe": (0.08, 1.0), "light": (0.5, 1.0)}
_RATIOS = (3 / 4, 4 / 3)
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_RATIOS = (0.3, 1 / 0.3)
_BICUBIC = Image.Resampling.BICUBIC


@dataclass(frozen=True)
class AugmentOptions:
    """How images become pixels.

    ``kind``: ``recipe`` (crop of 0.08 to 1 of the area, flip, RandAugment, erasing), ``light`` (crop of 0.5
    to 1, flip) or ``none`` (largest centre square). ``mean`` and ``std``: the data's, in [0, 1], red, green,
    blue; they fill what RandAugment and erasing leave empty.
    """

    kind: str
    image_size: int
    seed: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Augmenter:
    """Images to pixels. Not for use by several threads at once; any number of augmenters may be."""

    def __init__(self, options: AugmentOptions) -> None:
        self.options = options
        self._random = random.Random()
        self._numpy = np.random.RandomState()
        self._rand_augment = None
        if options.kind == "recipe":
            library = _own_copy_of_timm_auto_augment()
            library.random = self._random
            library.np = SimpleNamespace(random=self._numpy)
            library.NAME_TO_OP["PosterizeIncreasing"] = _posterize
            self._rand_augment = library.rand_augment_transform(
                RAND_AUGMENT,
                {
                    "translate_const": int(options.image_size * 0.45),
                    "img_mean": tuple(round(255 * value) for value in options.mean),
                    "interpolation": _BICUBIC,
                },
            )

    def __call__(self, image: Image.Image, key: str, epoch: int) -> np.ndarray:
        """uint8 (image_size, image_size, 3) of an RGB image, as it is in this epoch."""
        size, kind = (self.options.image_size,) * 2, self.options.kind
        if kind == "none":
            return np.asarray(image.crop(centre_box(*image.size)).resize(size, _BICUBIC))
        seed = image_seed(self.options.seed, epoch, key)
        self._random.seed(seed)
        box = crop_box(self._random, *image.size, _SCALES[kind])
        image = image.crop(box).resize(size, _BICUBIC)
        if self._random.random() < FLIP_PROBABILITY:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self._rand_augment is None:
            return np.asarray(image)
        self._numpy.seed([seed & 0xFFFFFFFF, seed >> 32])
        pixels = np.array(self._rand_augment(image))
        if self._random.random() < ERASE_PROBABILITY:
            erase(pixels, self._random, self._numpy, self.options.mean, self.options.std)
        return pixels


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """timm's; at the highest magnitude it asks for 0 bits, black, which Pillow refuses from version 13 on."""
    return ImageOps.posterize(image, bits) if bits > 0 else Image.new(image.mode, image.size)


def image_seed(seed: int, epoch: int, key: str) -> int:
    """64 bits for one image in one epoch."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/pixels/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def crop_box(
    source: random.Random, width: int, height: int, scale: tuple[float, float]
) -> tuple[int, int, int, int]:
    """RandomResizedCrop's box: left, top, right, bottom in pixels.

    ``scale`` bounds its share of the area; its shape is between 3:4 and 4:3, log-uniform. After ten boxes
    that do not fit, the largest one of an allowed shape in the middle.
    """
    for _ in range(10):
        area = source.uniform(*scale) * width * height
        ratio = math.exp(source.uniform(math.log(_RATIOS[0]), math.log(_RATIOS[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = source.randint(0, height - h), source.randint(0, width - w)
            return left, top, left + w, top + h
    w = max(1, min(width, round(height * _RATIOS[1])))
    h = max(1, min(height, round(width / _RATIOS[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def centre_box(width: int, height: int) -> tuple[int, int, int, int]:
    """The largest square in the middle: left, top, right, bottom in pixels."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def erase(
    pixels: np.ndarray,
    source: random.Random,
    noise: np.random.RandomState,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> None:
    """Fill one rectangle of 2 to 33 % of uint8 (H, W, 3) with noise, in place (timm's mode ``pixel``).

    The noise is normal with the data's mean and deviation, so standard normal after normalisation, except
    that a byte cuts it off at black and white.
    """
    height, width, _ = pixels.shape
    for _ in range(10):
        area = source.uniform(*_ERASED_AREA) * height * width
        ratio = math.exp(source.uniform(*(math.log(bound) for bound in _ERASED_RATIOS)))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w < width and 0 < h < height:
            top, left = source.randint(0, height - h), source.randint(0, width - w)
            values = noise.standard_normal((h, w, 3)) * (255 * np.array(std)) + 255 * np.array(mean)
            pixels[top : top + h, left : left + w] = np.clip(np.rint(values), 0, 255)
            return


@lru_cache(maxsize=1)
def _timm_auto_augment_file() -> Path:
    package = importlib.util.find_spec("timm")  # finds the package without importing it
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("augment=recipe needs timm, which requirements.txt installs")
    return Path(package.submodule_search_locations[0]) / "data" / "auto_augment.py"


def _own_copy_of_timm_auto_augment() -> ModuleType:
    """timm's module anew, known to nobody else, so that its generators can be replaced."""
    spec = importlib.util.spec_from_file_location("timm_auto_augment", _timm_auto_augment_file())
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {_timm_auto_augment_file()}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
