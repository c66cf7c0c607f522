"""Contrastive losses of images with captions and with several prompts each (CoCu, section 3.4).

Over several processes: rank r's loss is the mean over **its own rows** of both directions, each compared
with the rows of all ranks. With the same number of rows on every rank the mean of the ranks' losses is
the loss of one process on the whole batch. Its gradient is the **mean over ranks of the parameters'
gradients** provided that the backward of ``gather`` hands each rank the **sum** over all ranks of the
gradients of its slice: a row's gradient then holds what it does as a negative on the other ranks too.
(Horovod's own allgather averages instead of summing there, and would make that part too small.)

Images come as one feature each, or as the features of their segments (``models.segment_match``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch.nn import functional

from models.segment_match import match_segments

__all__ = ["REDUCTIONS", "Concepts", "Gather", "contrastive_loss", "multi_label_loss", "unit_rows"]

Gather = Callable[[torch.Tensor], tuple[torch.Tensor, int]]
"""(b, ...) rows of this rank -> ((B, ...) rows of all ranks in rank order, place of its own first row)."""

Reduction = Literal["log_sum", "mean_log", "each"]
REDUCTIONS: tuple[Reduction, ...] = ("log_sum", "mean_log", "each")


class Concepts(NamedTuple):
    """Which prompts are no negatives of which images: those whose concept the image is known to show.

    Numbers stand for concepts, the same for the same text in every process; 0 stands for none.
    """

    prompts: torch.Tensor
    """(b, K) int64: what each prompt names; 0 (a caption in a prompt's place) is everybody's negative."""
    known: torch.Tensor
    """(b, L) int64: what each image is known to show; L the same in every process."""


def contrastive_loss(
    image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor | float, gather: Gather | None = None
) -> torch.Tensor:
    """InfoNCE between images (b, E) and their captions (b, E), both directions averaged.

    Rows need not be normalised. Computed in float32 (float64 if given) even under autocast.
    """
    return multi_label_loss(image, text.unsqueeze(1), scale, gather=gather)


def multi_label_loss(
    image: torch.Tensor,
    prompts: torch.Tensor,
    scale: torch.Tensor | float,
    reduction: Reduction = "log_sum",
    gather: Gather | None = None,
    concepts: Concepts | None = None,
    competing: bool = False,
) -> torch.Tensor:
    """InfoNCE between images and K positive prompts each (b, K, E), both directions averaged.

    Image to text: p(i, k) is the softmax of image i over all B K prompts. ``log_sum`` (the paper) is
    -log of the sum of p over the K prompts of the image; ``mean_log`` (the authors' code) the mean of
    -log p over them, i.e. cross entropy with targets 1/K; ``each`` as well, but with a softmax over that
    prompt and the negatives alone, so that an image's prompts do not compete with each other. Text to image,
    in all: -log of the softmax of a prompt over all B images at its own. Equal prompts and prompts equal to
    the caption are fine.

    Args:
        image: (b, E), or (b, G, E): segments, which prompts are matched to (``models.segment_match``).
        concepts: pairs of an image and another's prompt that it knows are left out of both softmaxes; None:
            every other image's prompt is a negative.
        competing: (segments only) image to text, every segment has a softmax of its own over all texts, and an
            image's chance of a prompt is the mean of its segments': to reach all K prompts its segments must share
            them out among each other. ``reduction`` is not asked then.
    """
    if prompts.ndim != 3 or image.ndim not in (2, 3) or len(image) != len(prompts) or 0 in prompts.shape:
        raise ValueError(
            f"images (b, E) or (b, G, E) and prompts (b, K, E) expected, not {image.shape} and {prompts.shape}"
        )
    if competing and image.ndim != 3:
        raise ValueError(f"competing segments (b, G, E) expected, not {image.shape}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction={reduction!r}: write one of {', '.join(REDUCTIONS)}")
    with torch.autocast(image.device.type, enabled=False):
        image, prompts = unit_rows(image), unit_rows(prompts)
        all_images, all_prompts, first = _gathered(image, prompts, gather)
        to_text = scale * _similarity(image, all_prompts.flatten(0, 1), scale)
        to_image = scale * _similarity(all_images, prompts.flatten(0, 1), scale).T
        if concepts is not None:
            to_text, to_image = _without_known(to_text, to_image, concepts, first, gather)
        rows = torch.arange(first, first + len(image), device=image.device)
        if competing:
            image_half = _competing_half(
                scale * (image @ all_prompts.flatten(0, 1).T), to_text, rows, prompts.shape[1]
            )
        else:
            image_half = _image_half(to_text, rows, prompts.shape[1], reduction)
        text_half = functional.cross_entropy(to_image, rows.repeat_interleave(prompts.shape[1]))
        return 0.5 * (image_half + text_half)


def _image_half(logits: torch.Tensor, rows: torch.Tensor, count: int, reduction: Reduction) -> torch.Tensor:
    """Mean over this rank's images (b, B K): image i's positives are the K columns of row ``rows[i]``."""
    own = torch.arange(len(logits), device=logits.device)
    grouped = logits.unflatten(1, (-1, count))
    positives = grouped[own, rows]
    if reduction == "each":
        is_own = torch.zeros(grouped.shape[:2], dtype=torch.bool, device=logits.device)
        is_own[own, rows] = True
        negatives = grouped.masked_fill(is_own[:, :, None], -torch.inf).flatten(1).logsumexp(dim=1)
        return functional.softplus(negatives[:, None] - positives).mean()
    chosen = positives.logsumexp(dim=1) if reduction == "log_sum" else positives.mean(dim=1)
    return (logits.logsumexp(dim=1) - chosen).mean()


def _competing_half(
    logits: torch.Tensor, masked: torch.Tensor, rows: torch.Tensor, count: int
) -> torch.Tensor:
    """Mean over images and their prompts of -log(mean over segments of the segment's softmax there).

    Args:
        logits: (b, G, B K). masked: (b, B K), -inf at texts that an image leaves out.
    """
    chances = logits.masked_fill(masked.isneginf()[:, None], -torch.inf).log_softmax(dim=2)
    own = torch.arange(len(logits), device=logits.device)
    positives = chances.unflatten(2, (-1, count))[own, :, rows]
    return (math.log(logits.shape[1]) - positives.logsumexp(dim=1)).mean()


def _similarity(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor | float) -> torch.Tensor:
    """Unit images (n, E) or segments (n, G, E) and unit texts (m, E) -> (n, m)."""
    return images @ texts.T if images.ndim == 2 else match_segments(images, texts, scale)


def _without_known(
    to_text: torch.Tensor, to_image: torch.Tensor, concepts: Concepts, first: int, gather: Gather | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """-inf where another's prompt names what an image is known to show, in both directions."""
    (own, count), known = concepts.prompts.shape, concepts.known
    everything = torch.cat([concepts.prompts, known], dim=1)
    if gather is not None:
        everything, first = gather(everything)
    all_prompts, all_known = everything[:, :count], everything[:, count:]
    place = torch.arange(own, device=known.device)
    spare_text = _shows(known, all_prompts.flatten()).unflatten(1, (-1, count))
    spare_text[place, first + place] = False
    spare_image = _shows(all_known, concepts.prompts.flatten()).T.unflatten(0, (own, count))
    spare_image[place, :, first + place] = False
    return (
        to_text.masked_fill(spare_text.flatten(1), -torch.inf),
        to_image.masked_fill(spare_image.flatten(0, 1), -torch.inf),
    )


def _shows(known: torch.Tensor, named: torch.Tensor) -> torch.Tensor:
    """bool (n, m): whether number ``named[m]`` is among ``known[n]``; 0 never is."""
    found = torch.zeros(len(known), len(named), dtype=torch.bool, device=known.device)
    for column in known.unbind(dim=1):  # one (n, m) mask at a time instead of (n, L, m)
        found |= column[:, None] == named
    return found & (named != 0)


def unit_rows(rows: torch.Tensor) -> torch.Tensor:
    """(..., E) -> length 1, float32 (float64 if given)."""
    return functional.normalize(rows if rows.dtype == torch.float64 else rows.float(), dim=-1)


def _gathered(
    image: torch.Tensor, prompts: torch.Tensor, gather: Gather | None
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Images (or segments) and prompts of all ranks by one exchange, and the place of this rank's first row."""
    if gather is None:
        return image, prompts, 0
    parts = image.unsqueeze(1) if image.ndim == 2 else image
    everything, first = gather(torch.cat([parts, prompts], dim=1))
    images, texts = everything.split([parts.shape[1], prompts.shape[1]], dim=1)
    return images[:, 0] if image.ndim == 2 else images, texts, first
