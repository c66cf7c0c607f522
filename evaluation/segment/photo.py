"""One photo through the model: classes of its pixels, shares, and the groups it is taken apart into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from evaluation.photos import read_picture
from evaluation.protocol import (
    Protocol,
    best_classes,
    group_maps,
    resize_short_side,
    segment_scores,
    slide_images,
)
from models.groupvit import GroupViT
from models.pixels import normalise

__all__ = ["Photo", "Segmented", "full_size", "open_photo", "segment_photos"]

SHOWN_SIDE = 1200
"""Longest side of the pictures that are made to be looked at; tiny photos are magnified to SMALLEST_SIDE."""
SMALLEST_SIDE = 256
_MASK_PIXELS = (
    4_000_000  # classes are decided at this size at most: finer than the model sees, whatever the photo
)


@dataclass(frozen=True)
class Photo:
    """A photo made ready: its name, (height, width), and two uint8 RGB copies."""

    path: Path
    size: tuple[int, int]
    model_input: np.ndarray
    """Resized to the protocol's short side."""
    shown: np.ndarray
    """Of SMALLEST_SIDE to SHOWN_SIDE pixels on the longer side."""


@dataclass(frozen=True)
class Segmented:
    """What the model says of a photo; C classes, background 0 if there is one.

    labels: uint16 (h, w), the photo's size or, of a large one, smaller. shares: float64 (C,), of the pixels.
    groups: uint8 (h, w), one map for each grouping stage, coarsest last, at the size of the model's input;
    group_classes: the class (without background) that each group of the last stage is nearest to.
    """

    labels: np.ndarray
    shares: np.ndarray
    groups: tuple[np.ndarray, ...]
    group_classes: tuple[int, ...]


def open_photo(path: Path, protocol: Protocol) -> Photo:
    """Read and resize; runs in a thread beside the model.

    Raises:
        UserError: the file cannot be read.
    """
    picture = read_picture(path)
    small = resize_short_side(picture, protocol.short_side, protocol.long_side)
    return Photo(path, (picture.shape[0], picture.shape[1]), small, _to_look_at(picture))


def segment_photos(
    model: GroupViT,
    photos: Sequence[Photo],
    texts: torch.Tensor,
    protocol: Protocol,
    max_windows: int | None = None,
) -> Iterator[Segmented]:
    """The photos' windows go through the model together; one result a photo, in order.

    Args:
        model: in evaluation mode.
        photos: of any sizes, few enough to fit into memory.
        texts: (C, E) of evaluation.protocol.class_texts, background not among them.
        protocol: a background threshold adds the background as class 0.
        max_windows: at once; changes memory and speed only.
    """
    images = [
        normalise(torch.from_numpy(photo.model_input)[None].to(texts.device))[0].to(texts.dtype)
        for photo in photos
    ]
    classes_in_all = len(texts) + (protocol.background_threshold is not None)
    for photo, image, scores in zip(
        photos, images, slide_images(model, images, texts, protocol, max_windows), strict=True
    ):
        labels = best_classes(scores, _mask_size(photo.size)).cpu().numpy().astype(np.uint16)
        counts = np.bincount(labels.ravel(), minlength=classes_in_all)
        groups, classes = _groups(model, image, texts, protocol.top)
        yield Segmented(labels, counts / labels.size, groups, classes)


def full_size(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map of labels at the photo's own (height, width)."""
    if labels.shape == tuple(size):
        return labels
    return cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)


@torch.no_grad()
def _groups(
    model: GroupViT, image: torch.Tensor, texts: torch.Tensor, top: int
) -> tuple[tuple[np.ndarray, ...], tuple[int, ...]]:
    """The groups of the whole photo in a single pass, for each stage, and the classes of the last stage's."""
    size = (image.shape[-2], image.shape[-1])
    patch = model.config.patch_size
    fitted = [max(round(side / patch), 1) * patch for side in size]
    whole = torch.nn.functional.interpolate(image[None], size=fitted, mode="bilinear", align_corners=False)
    features = model.encode_image(whole, with_maps=True)
    maps = [
        group_maps(features._replace(assignments=features.assignments[: stage + 1]), size).argmax(dim=1)[0]
        for stage in range(len(features.assignments))
    ]
    scores, _ = segment_scores(features, texts, model.scales().caption, top)
    return tuple(m.cpu().numpy().astype(np.uint8) for m in maps), tuple(scores[0].argmax(dim=-1).tolist())


def _mask_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, (_MASK_PIXELS / (size[0] * size[1])) ** 0.5)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _to_look_at(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    longest = max(height, width)
    if SMALLEST_SIDE <= longest <= SHOWN_SIDE:
        return picture
    scale = min(max(longest, SMALLEST_SIDE), SHOWN_SIDE) / longest
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
