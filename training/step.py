"""Losses and gradients of one step, over all ranks' rows and in as many pieces as memory needs.

In pieces (``accumulate`` > 1) the contrastive batch stays whole (gradient caching, Gao et al. 2021): the
encoders run piece by piece without keeping anything; projectors, batch norm and losses run once on all
features; then the encoders run again, piece by piece, with the gradients of their features. Cut before the
batch norms, this is the same gradient as in one piece, at the price of a second forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch

from models.groupvit import GroupViT
from models.losses import contrastive_loss, multi_label_loss
from training import distributed

__all__ = ["LossOptions", "OnDevice", "accumulate_gradients"]


@dataclass(frozen=True)
class LossOptions:
    """See ``configs.training``."""

    reduction: str
    weight: float
    bf16: bool
    pieces: int


@dataclass
class OnDevice:
    """A batch on the device of the model."""

    images: torch.Tensor
    """float32 (n, 3, H, W), normalised (``models.pixels``)"""
    captions: torch.Tensor
    prompts: torch.Tensor | None

    def piece(self, rows: slice) -> OnDevice:
        """Some rows."""
        prompts = None if self.prompts is None else self.prompts[rows]
        return OnDevice(self.images[rows], self.captions[rows], prompts)


def accumulate_gradients(
    model: GroupViT,
    batch: OnDevice,
    counts: Sequence[int],
    options: LossOptions,
    generator: torch.Generator | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add this rank's gradients to the parameters' ``grad``; their mean over ranks is that of the batch.

    Args:
        counts: rows of every rank in this step.

    Returns:
        float32 (3,): total, caption and multi-label loss, whose means over ranks are the batch's; bool (n,):
        whether a row's features are numbers.
    """
    if options.pieces == 1:
        features = _features(model, batch, options.bf16, generator)
        losses = _losses(model, *features, batch, counts, options)
        losses[0].backward()
        return losses.detach(), _sound(features)
    rows = torch.arange(len(batch.images)).tensor_split(options.pieces)
    pieces = [batch.piece(slice(int(part[0]), int(part[-1]) + 1)) for part in rows if len(part)]
    states, image_parts, text_parts = [], [], []
    with torch.no_grad():
        for piece in pieces:
            states.append(None if generator is None else generator.get_state())
            image, caption, prompt = _features(model, piece, options.bf16, generator)
            image_parts.append(image)
            text_parts.append((caption, prompt))
    whole = [
        torch.cat(image_parts).requires_grad_(),
        torch.cat([caption for caption, _ in text_parts]).requires_grad_(),
        None if batch.prompts is None else torch.cat([p for _, p in text_parts]).requires_grad_(),  # type: ignore[misc]
    ]
    losses = _losses(model, *whole, batch, counts, options)
    losses[0].backward()
    _backward_pieces(model, pieces, whole, states, options.bf16, generator)
    return losses.detach(), _sound(whole)


@torch.no_grad()
def _sound(features: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """bool (n,): rows of which all features are finite."""
    rows = [part.isfinite().flatten(1).all(dim=1) for part in features if part is not None]
    return torch.stack(rows).all(dim=0)


def _backward_pieces(
    model: GroupViT,
    pieces: list[OnDevice],
    whole: list[torch.Tensor | None],
    states: list[torch.Tensor | None],
    bf16: bool,
    generator: torch.Generator | None,
) -> None:
    """Run the encoders again with the same noise, and send the features' gradients through them."""
    sizes = [len(piece.images) for piece in pieces]
    gradients = [
        [None] * len(pieces) if features is None else features.grad.split(sizes)  # type: ignore[union-attr]
        for features in whole
    ]
    for number, (piece, state) in enumerate(zip(pieces, states, strict=True)):
        if generator is not None and state is not None:
            generator.set_state(state)
        found = _features(model, piece, bf16, generator)
        pairs = [
            (feature, gradient[number])
            for feature, gradient in zip(found, gradients, strict=True)
            if feature is not None
        ]
        torch.autograd.backward([feature for feature, _ in pairs], [gradient for _, gradient in pairs])


def _autocast(device: torch.device, bf16: bool) -> AbstractContextManager[object]:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


def _features(
    model: GroupViT, batch: OnDevice, bf16: bool, generator: torch.Generator | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """What comes before the projectors: image (n, width), caption (n, W) and prompt (n, K, W) features."""
    with _autocast(batch.images.device, bf16):
        image = model.image_encoder(batch.images, False, generator)[0].mean(dim=1)
        caption = model.text_encoder(batch.captions)
        if batch.prompts is None:
            return image, caption, None
        count = batch.prompts.shape[1]
        return image, caption, model.text_encoder(batch.prompts.flatten(0, 1)).unflatten(0, (-1, count))


def _losses(
    model: GroupViT,
    image: torch.Tensor,
    caption: torch.Tensor,
    prompts: torch.Tensor | None,
    batch: OnDevice,
    counts: Sequence[int],
    options: LossOptions,
) -> torch.Tensor:
    """(3,) float32: total, caption loss, multi-label loss, weighted by this rank's share of the rows."""
    gather = partial(distributed.gather, counts=counts) if len(counts) > 1 else None
    with _autocast(image.device, options.bf16):
        image = model.image_projector(image)
        # Captions and prompts are one batch for the text projector's batch norm, as in the model's forward.
        texts = caption if prompts is None else torch.cat([caption, prompts.flatten(0, 1)])
        texts = model.text_projector(texts)
    scales = model.scales()
    caption_loss = contrastive_loss(image, texts[: len(image)], scales.caption, gather)
    prompt_loss = torch.zeros_like(caption_loss)
    if prompts is not None:
        positives = texts[len(image) :].unflatten(0, (len(image), -1))
        prompt_loss = multi_label_loss(image, positives, scales.prompts, options.reduction, gather)  # type: ignore[arg-type]
    share = len(image) * len(counts) / sum(counts)
    return share * torch.stack([caption_loss + options.weight * prompt_loss, caption_loss, prompt_loss])
