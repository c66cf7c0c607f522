"""Where a model fails: how good its grouping is when segments are named for it, and how well it tags whole images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch.nn import functional

from evaluation.protocol import class_texts, group_maps, resize_short_side, window_places
from models.groupvit import GroupViT
from models.pixels import normalise

__all__ = ["Diagnosis", "diagnose", "oracle_confusion", "tagging_map"]

_IGNORED = 255


@dataclass(frozen=True)
class Diagnosis:
    """Of n images and C classes."""

    oracle: np.ndarray
    """int64 (C, C): pixels by true class and by the class that most pixels of their segment have"""
    tagging_map: float
    """mean over the classes of the average precision of ranking images by their nearness to the class's text"""


@torch.no_grad()
def diagnose(
    model: GroupViT,
    pictures: Iterable[tuple[np.ndarray, np.ndarray]],
    classes: list[str],
    short_side: int,
    window: int,
) -> Diagnosis:
    """Pictures through the model in windows side by side (the last ones overlap where they must).

    An image is as near to a class as the nearest of its windows is. Pixels are counted at the size the model sees.

    Args:
        model: in evaluation mode.
        pictures: (H, W, 3) uint8 RGB and (H, W) ids of classes, 255 left out of account.
        classes: C names, in the order of the ids.
        short_side: that pictures are brought to, at least ``window``.
        window: side in pixels, a multiple of the patch size.
    """
    texts = class_texts(model, classes)
    oracle = np.zeros((len(classes), len(classes)), np.int64)
    nearness, shown = [], []
    for picture, ids in pictures:
        photo = resize_short_side(picture, short_side)
        mask = cv2.resize(ids, photo.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        parts = _windows(photo, window)
        pixels = torch.from_numpy(np.stack([photo[part] for part in parts]))
        features = model.encode_image(normalise(pixels), with_maps=True)
        segments = group_maps(features, (window, window)).argmax(dim=1).numpy()
        for part, segment in zip(parts, segments, strict=True):
            oracle += oracle_confusion(mask[part], segment, len(classes))
        cosines = functional.normalize(features.pooled, dim=-1) @ texts.T
        nearness.append(cosines.amax(dim=0).numpy())
        shown.append(np.isin(np.arange(len(classes)), mask))
    return Diagnosis(oracle, tagging_map(np.array(nearness), np.array(shown)))


def _windows(photo: np.ndarray, window: int) -> list[tuple[slice, slice]]:
    _, places = window_places(photo.shape[0], photo.shape[1], window, window)
    return [(slice(top, top + window), slice(left, left + window)) for top, left in places]


def oracle_confusion(mask: np.ndarray, segments: np.ndarray, classes: int) -> np.ndarray:
    """Every segment named by the majority of its true pixels, the first of equals: int64 (C, C), true by named.

    Args:
        mask: (H, W) ids below ``classes``; 255 is left out.
        segments: (H, W) ids of segments.
    """
    counted = mask != _IGNORED
    groups = int(segments.max()) + 1
    cells = segments[counted].astype(np.int64) * classes + mask[counted]
    table = np.bincount(cells, minlength=groups * classes).reshape(groups, classes)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion.T, table.argmax(axis=1), table)
    return confusion


def tagging_map(nearness: np.ndarray, shown: np.ndarray) -> float:
    """Mean average precision over the classes that some images show and others do not, NaN without any.

    Args:
        nearness: float (n, C), of images to texts of classes.
        shown: bool (n, C).
    """
    telling = shown.any(axis=0) & ~shown.all(axis=0)
    if not telling.any():
        return float("nan")
    return float(average_precision_score(shown[:, telling], nearness[:, telling], average="macro"))
