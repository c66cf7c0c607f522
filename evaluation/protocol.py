"""The zero-shot protocol in plain torch: from an image and class texts to scores per pixel (GroupViT, section 4).

For a window of h x w pixels: the soft assignment maps of the grouping stages are multiplied to one map
per segment, brought to pixels bilinearly, and every pixel goes to its best segment. A segment's class scores
are P0 x P1: P0 the softmax over all classes, P1 the softmax over the ``top`` classes nearest to the pooled
feature. With a background rule, a pixel whose best score is below min(threshold, the window's best segment
score) counts for the background. An image is covered by overlapping windows; scores are summed and divided by
the number of windows over each pixel.

Two things the paper leaves open: background pixels score 1 for the background and keep their class
scores, and a window whose sides are no multiples of the patch size is resized to the nearest multiples
for the model alone (maps and scores stay at the window's own size).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.nn import functional

from models.groupvit import GroupViT, ImageFeatures
from models.tokenize import tokenize, trim

__all__ = [
    "TEMPLATE", "ImageScores", "Protocol", "WindowResult", "apply_background", "best_classes", "class_texts",
    "encode_windows", "group_maps", "resize_short_side", "segment_scores", "slide_images", "window_places",
    "windows_at_once",
]  # fmt: skip

TEMPLATE = "a photo of a {}."
_TEXTS_A_BATCH = 256
_CHANNELS_A_STEP = 8


@dataclass(frozen=True)
class Protocol:
    """Sizes and thresholds of a benchmark, in pixels after resizing."""

    short_side: int = 448
    window: int = 448
    stride: int = 224
    background_threshold: float | None = None
    """None: the class list has no background."""
    top: int = 5
    """Classes kept of a window, nearest to its pooled feature."""
    long_side: int = 2048
    """A very long image is resized to this instead, its short side then being smaller."""
    template: str = TEMPLATE


class WindowResult(NamedTuple):
    """What the model says of B windows of h x w pixels; G segments, C classes."""

    segments: torch.Tensor
    """(B, h, w) int64: the segment each pixel belongs to."""
    scores: torch.Tensor
    """(B, G, C): P0 x P1, zero outside ``classes``."""
    classes: torch.Tensor
    """(B, top) int64, ascending: the classes kept."""


class ImageScores(NamedTuple):
    """Class scores of an image of H x W pixels, of the K classes that any of its windows kept; others score 0."""

    classes: torch.Tensor
    """(K,) int64, ascending; 0 is the background where there is one."""
    values: torch.Tensor
    """(K, H, W)"""

    def dense(self, count: int) -> torch.Tensor:
        """All ``count`` classes (background included): (count, H, W)."""
        return self.values.new_zeros(count, *self.values.shape[1:]).index_copy_(0, self.classes, self.values)


@torch.no_grad()
def class_texts(model: GroupViT, names: Sequence[str], template: str = TEMPLATE) -> torch.Tensor:
    """n class names -> (n, E) in the common space, rows L2-normalised, on the model's device."""
    parameter = next(model.parameters())
    tokens = trim(tokenize([template.format(name) for name in names], model.config.context_length))
    parts = [model.encode_text(part.to(parameter.device)) for part in tokens.split(_TEXTS_A_BATCH)]
    return functional.normalize(torch.cat(parts), dim=-1)


def group_maps(features: ImageFeatures, size: tuple[int, int]) -> torch.Tensor:
    """Soft maps of all grouping stages multiplied, at ``size`` pixels: (B, G, height, width).

    Before the interpolation a patch's values over the G segments sum to 1.
    """
    product = features.assignments[0]
    for assignment in features.assignments[1:]:
        product = assignment @ product
    return functional.interpolate(
        product.unflatten(-1, features.grid), size=size, mode="bilinear", align_corners=False
    )


def segment_scores(
    features: ImageFeatures, texts: torch.Tensor, scale: torch.Tensor, top: int = 5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Class scores of the segments, P0 x P1, and the classes kept.

    Args:
        features: of B images in evaluation mode.
        texts: (C, E), rows L2-normalised.
        scale: the inverse temperature.
        top: classes kept, those nearest to the pooled feature (all where there are fewer).

    Returns:
        (B, G, C) scores in [0, 1], zero for classes that are not kept; (B, min(top, C)) int64 ascending.
    """
    assert features.segments is not None, "segments are there in evaluation mode only"
    logits = functional.normalize(features.segments, dim=-1) @ texts.T * scale
    nearness = functional.normalize(features.pooled, dim=-1) @ texts.T
    kept = nearness.topk(min(top, len(texts)), dim=-1).indices.sort(dim=-1).values
    dropped = torch.ones_like(nearness, dtype=torch.bool).scatter_(-1, kept, False)
    filtered = logits.masked_fill(dropped[:, None], -torch.inf)
    return logits.softmax(dim=-1) * filtered.softmax(dim=-1), kept


@torch.no_grad()
def encode_windows(
    model: GroupViT, images: torch.Tensor, texts: torch.Tensor, top: int = 5, dtype: torch.dtype | None = None
) -> WindowResult:
    """Normalised windows (B, 3, h, w) of any size -> segments of pixels and class scores of segments.

    ``dtype`` (torch.bfloat16) is what the model computes in; scores and maps stay in that of the texts.
    """
    size = (images.shape[-2], images.shape[-1])
    fitted = _fit_patches(images, model.config.patch_size)
    with torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
        features = model.encode_image(fitted, with_maps=True)
    assert features.segments is not None, "segments are there in evaluation mode only"
    features = features._replace(pooled=features.pooled.to(texts), segments=features.segments.to(texts))
    scores, kept = segment_scores(features, texts, model.scales().caption, top)
    first, *others = group_maps(features, size).unbind(1)
    return WindowResult(_first_highest(first, others, len(others)).long(), scores, kept)


def apply_background(scores: torch.Tensor, best: torch.Tensor, threshold: float) -> torch.Tensor:
    """Put a background channel first: 1 where the best class scores below min(threshold, best), else 0.

    Args:
        scores: (B, C, ...) class scores of pixels or of segments.
        best: (B,) the highest score of any segment of each window.
        threshold: of the benchmark.

    Returns:
        (B, C + 1, ...); the class scores are unchanged.
    """
    limit = best.clamp(max=threshold).view(-1, *[1] * (scores.ndim - 2))
    background = scores.amax(dim=1) < limit
    return torch.cat([background[:, None].to(scores.dtype), scores], dim=1)


def window_places(
    height: int, width: int, window: int, stride: int
) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """Size of the windows that cover an image, and their top left corners, row by row.

    Windows step by ``stride``; the last of a row or column is moved back to end with the image. An image
    smaller than a window is one window in that direction.
    """
    rows, columns = _starts(height, window, stride), _starts(width, window, stride)
    return (min(window, height), min(window, width)), [(row, column) for row in rows for column in columns]


@torch.no_grad()
def slide_images(
    model: GroupViT,
    images: Sequence[torch.Tensor],
    texts: torch.Tensor,
    protocol: Protocol,
    max_windows: int | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[ImageScores]:
    """Scores of whole images of any sizes; equal windows of all of them share batches.

    Args:
        model: in evaluation mode.
        images: (3, H, W) each, normalised (models.pixels).
        texts: (C, E) of :func:`class_texts`, background not among them.
        protocol: its windows, threshold and number of classes kept; images are not resized here.
        max_windows: at most so many windows pass the model at once (None: as many as suit the device);
            changes memory and speed only.
        dtype: see :func:`encode_windows`.

    Yields:
        the scores, with the background first where there is a threshold; image by image, so that only one image's
        are held.
    """
    places = [window_places(*image.shape[-2:], protocol.window, protocol.stride) for image in images]
    encode = partial(encode_windows, model, texts=texts, top=protocol.top, dtype=dtype)
    results = _encode_all(encode, images, places, texts.dtype, max_windows)
    for number, (image, (size, corners)) in enumerate(zip(images, places, strict=True)):
        tables = [_window_table(result, protocol.background_threshold) for result in results[number]]
        classes, channels = torch.cat([kept for kept, _ in tables]).unique(return_inverse=True)
        canvas = texts.new_zeros(len(classes), *image.shape[-2:])
        by_window = channels.view(len(corners), -1).tolist()
        for corner, result, (_, table), into in zip(
            corners, results.pop(number), tables, by_window, strict=True
        ):
            _add_window(canvas, corner, size, table, result.segments, into)
        yield ImageScores(classes, canvas.div_(_hits(image.shape[-2:], size, corners).to(canvas)))


def best_classes(scores: ImageScores, size: tuple[int, int]) -> torch.Tensor:
    """Scores, none negative, resized bilinearly to ``size`` -> the best class there, int64.

    The first of equals wins, and class 0 where nothing scores. Works on a few classes at a time, as hundreds of
    classes at the size of a photo do not fit into memory.
    """
    channels = (channel for part in scores.values.split(_CHANNELS_A_STEP) for channel in _resized(part, size))
    best = _first_highest(scores.values.new_zeros(size), channels, len(scores.classes))
    names = functional.pad(scores.classes, (1, 0))
    return names.index_select(0, best.flatten().int()).view(size)


def resize_short_side(image: np.ndarray, short_side: int, long_side: int = 2048) -> np.ndarray:
    """uint8 (H, W, 3) resized as mmseg's ``Resize(scale=(long_side, short_side), keep_ratio=True)`` does it."""
    height, width = image.shape[:2]
    factor = min(long_side / max(height, width), short_side / min(height, width))
    size = (max(int(width * factor + 0.5), 1), max(int(height * factor + 0.5), 1))
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def _first_highest(floor: torch.Tensor, planes: Iterable[torch.Tensor], count: int) -> torch.Tensor:
    """The number, from 1, of the plane that is highest at each place, the first of equals; 0 where none is above ``floor``.

    At most ``count`` planes; uint8, or int16 where that does not do. Numbers ascend, so that the largest number that was
    ever higher is the highest plane's: comparisons and maxima alone, a tenth of what argmax takes on a CPU.
    """
    kind = torch.uint8 if count < 256 else torch.int16
    best, number = floor.clone(), torch.zeros_like(floor, dtype=kind)
    for place, plane in enumerate(planes, start=1):
        torch.maximum(number, (plane > best).to(kind).mul_(place), out=number)
        torch.maximum(best, plane, out=best)
    return number


def _resized(channels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if channels.shape[-2:] == tuple(size):
        return channels
    return functional.interpolate(channels[None], size=size, mode="bilinear", align_corners=False)[0]


def _fit_patches(images: torch.Tensor, patch: int) -> torch.Tensor:
    size = tuple(max(round(side / patch), 1) * patch for side in images.shape[-2:])
    if size == tuple(images.shape[-2:]):
        return images
    return functional.interpolate(images, size=size, mode="bilinear", align_corners=False)


def _starts(length: int, window: int, stride: int) -> list[int]:
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(number * stride + window, length) - window, 0) for number in range(count)]


def windows_at_once(size: tuple[int, int], device: torch.device) -> int:
    """Windows of ``size`` (pixels down, across) a batch: on a GPU 32, on a CPU what still stays in its caches.

    There 4 windows of 448 pixels are 1.3 times as fast as 32 in one batch.
    """
    return 32 if device.type != "cpu" else max(1, 4 * 448**2 // (size[0] * size[1]))


def _encode_all(
    encode: Callable[[torch.Tensor], WindowResult],
    images: Sequence[torch.Tensor],
    places: Sequence[tuple[tuple[int, int], list[tuple[int, int]]]],
    dtype: torch.dtype,
    max_windows: int | None,
) -> dict[int, list[WindowResult]]:
    """Results of each image's windows, in order; windows of one size go together whatever their image."""
    by_size: dict[tuple[int, int], list[tuple[int, torch.Tensor]]] = {}
    for number, (image, (size, corners)) in enumerate(zip(images, places, strict=True)):
        cut = [image[:, y : y + size[0], x : x + size[1]] for y, x in corners]
        by_size.setdefault(size, []).extend((number, window) for window in cut)
    results: dict[int, list[WindowResult]] = {number: [] for number in range(len(images))}
    for size, windows in by_size.items():
        step = max_windows or windows_at_once(size, windows[0][1].device)
        for start in range(0, len(windows), step):
            chunk = windows[start : start + step]
            found = encode(torch.stack([window for _, window in chunk]).to(dtype))
            for place, (number, _) in enumerate(chunk):
                results[number].append(WindowResult(*(part[place] for part in found)))
    return results


def _window_table(result: WindowResult, threshold: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes (k,) that a window kept, with the background first where there is a threshold, and scores (k, G)."""
    values, classes = result.scores[:, result.classes].T, result.classes
    if threshold is None:
        return classes, values
    values = apply_background(values[None], values.max()[None], threshold)[0]
    return functional.pad(classes + 1, (1, 0)), values


def _add_window(
    canvas: torch.Tensor,
    corner: tuple[int, int],
    size: tuple[int, int],
    table: torch.Tensor,
    segments: torch.Tensor,
    channels: Sequence[int],
) -> None:
    """Add a window's scores, ``table`` (k, G) of its segments (h, w), to the image's in the channels of its classes."""
    view = canvas[:, corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]
    values = table.index_select(1, segments.flatten()).unflatten(1, size)
    for channel, value in zip(channels, values, strict=True):
        view[channel] += value


def _hits(
    shape: torch.Size | tuple[int, ...], size: tuple[int, int], corners: Sequence[tuple[int, int]]
) -> torch.Tensor:
    """(H, W): how many windows cover each pixel."""
    hits = torch.zeros(tuple(shape))
    for y, x in corners:
        hits[y : y + size[0], x : x + size[1]] += 1
    return hits
