"""Contrastive losses of images with captions and with several prompts each (CoCu, section 3.4).

Over several processes: rank r's loss is the mean over **its own rows** of both directions, each compared
with the rows of all ranks. With the same number of rows on every rank the mean of the ranks' losses is
the loss of one process on the whole batch. Its gradient is the **mean over ranks of the parameters'
gradients** provided that the backward of ``gather`` hands each rank the **sum** over all ranks of the
gradients of its slice: a row's gradient then holds what it does as a negative on the other ranks too.
(Horovod's own allgather averages instead of summing there, and would make that part too small.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch.nn import functional

__all__ = ["Gather", "contrastive_loss", "multi_label_loss"]

Gather = Callable[[torch.Tensor], tuple[torch.Tensor, int]]
"""(b, ...) rows of this rank -> ((B, ...) rows of all ranks in rank order, place of its own first row)."""


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
    reduction: Literal["log_sum", "mean_log"] = "log_sum",
    gather: Gather | None = None,
) -> torch.Tensor:
    """InfoNCE between images (b, E) and K positive prompts each (b, K, E), both directions averaged.

    Image to text: p(i, k) is the softmax of image i over all B K prompts. ``log_sum`` (the paper) is
    -log of the sum of p over the K prompts of the image; ``mean_log`` (the authors' code) the mean of
    -log p over them, i.e. cross entropy with targets 1/K. Text to image, in both: -log of the softmax
    of a prompt over all B images at its own. Equal prompts and prompts equal to the caption are fine.
    """
    if prompts.ndim != 3 or image.ndim != 2 or len(image) != len(prompts) or 0 in prompts.shape:
        raise ValueError(
            f"images (b, E) and prompts (b, K, E) expected, not {image.shape} and {prompts.shape}"
        )
    if reduction not in ("log_sum", "mean_log"):
        raise ValueError(f"reduction={reduction!r}: write log_sum or mean_log")
    with torch.autocast(image.device.type, enabled=False):
        image, prompts = _unit(image), _unit(prompts)
        all_images, all_prompts, first = _gathered(image, prompts, gather)
        own, count = len(image), prompts.shape[1]
        rows = torch.arange(first, first + own, device=image.device)

        to_text = scale * (image @ all_prompts.flatten(0, 1).T)
        positives = to_text.unflatten(1, (-1, count))[torch.arange(own, device=image.device), rows]
        all_mass = to_text.logsumexp(dim=1)
        if reduction == "log_sum":
            image_half = (all_mass - positives.logsumexp(dim=1)).mean()
        else:
            image_half = (all_mass - positives.mean(dim=1)).mean()

        to_image = scale * (prompts.flatten(0, 1) @ all_images.T)
        text_half = functional.cross_entropy(to_image, rows.repeat_interleave(count))
        return 0.5 * (image_half + text_half)


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return functional.normalize(rows if rows.dtype == torch.float64 else rows.float(), dim=-1)


def _gathered(
    image: torch.Tensor, prompts: torch.Tensor, gather: Gather | None
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Images and prompts of all ranks by one exchange, and the place of this rank's first row."""
    if gather is None:
        return image, prompts, 0
    together = torch.cat([image.unsqueeze(1), prompts], dim=1)
    everything, first = gather(together)
    return everything[:, 0], everything[:, 1:], first
