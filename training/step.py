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

from models.groupvit import Encoded, GroupViT, Projected
from models.losses import Concepts, Gather, Reduction, contrastive_loss, multi_label_loss, unit_rows
from training import distributed
from training.gradients import GradientBuffer

__all__ = ["LossOptions", "OnDevice", "accumulate_gradients", "losses_of_rows"]


@dataclass(frozen=True)
class LossOptions:
    """See ``configs.training``."""

    reduction: Reduction = "log_sum"
    weight: float = 1.0
    match: str = "pooled"
    bf16: bool = False
    pieces: int = 1

    @property
    def with_segments(self) -> bool:
        """Whether the loss looks at single segments."""
        return self.match != "pooled"


@dataclass
class OnDevice:
    """A batch on the device of the model."""

    images: torch.Tensor
    """float32 (n, 3, H, W), normalised (``models.pixels``)"""
    captions: torch.Tensor
    prompts: torch.Tensor | None
    concepts: Concepts | None = None
    """which prompts are no negatives of which images (``models.losses``); None: all are"""

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
    buffer: GradientBuffer | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add this rank's gradients to the parameters' ``grad``; their mean over ranks is that of the batch.

    Args:
        counts: rows of every rank in this step.
        buffer: of the gradients; it begins to exchange them while the last backward runs.

    Returns:
        float32 (3,): total, caption and multi-label loss, whose means over ranks are the batch's; bool (n,):
        whether a row's features are numbers.
    """
    if options.pieces == 1:
        features = _features(model, batch, options, generator)
        losses = _losses(model, features, batch, counts, options)
        if buffer is not None:
            buffer.expect("heads", "encoders")
        losses[0].backward()
        return losses.detach(), _sound(features)
    rows = torch.arange(len(batch.images)).tensor_split(options.pieces)
    pieces = [batch.piece(slice(int(part[0]), int(part[-1]) + 1)) for part in rows if len(part)]
    states, parts = [], []
    with torch.no_grad():
        for piece in pieces:
            states.append(None if generator is None else generator.get_state())
            parts.append(_features(model, piece, options, generator))
    whole = Encoded(
        *(
            None if column[0] is None else torch.cat(column).requires_grad_()
            for column in zip(*parts, strict=True)
        )
    )  # type: ignore[arg-type]
    losses = _losses(model, whole, batch, counts, options)
    if buffer is not None:
        buffer.expect("heads")
    losses[0].backward()
    _backward_pieces(model, pieces, whole, states, options, generator, buffer)
    return losses.detach(), _sound(whole)


@torch.no_grad()
def losses_of_rows(model: GroupViT, batch: OnDevice, options: LossOptions) -> torch.Tensor:
    """float32 (3,): total, caption and multi-label loss of some rows among themselves, on this rank alone."""
    return _losses(model, _features(model, batch, options, None), batch, [len(batch.images)], options)


@torch.no_grad()
def _sound(features: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """bool (n,): rows of which all features are finite."""
    rows = [part.isfinite().flatten(1).all(dim=1) for part in features if part is not None]
    return torch.stack(rows).all(dim=0)


def _backward_pieces(
    model: GroupViT,
    pieces: list[OnDevice],
    whole: Encoded,
    states: list[torch.Tensor | None],
    options: LossOptions,
    generator: torch.Generator | None,
    buffer: GradientBuffer | None,
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
        found = _features(model, piece, options, generator)
        pairs = [
            (feature, gradient[number])
            for feature, gradient in zip(found, gradients, strict=True)
            if feature is not None
        ]
        if buffer is not None and number == len(pieces) - 1:
            buffer.expect("encoders")
        torch.autograd.backward([feature for feature, _ in pairs], [gradient for _, gradient in pairs])


def _autocast(device: torch.device, bf16: bool) -> AbstractContextManager[object]:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


def _features(
    model: GroupViT, batch: OnDevice, options: LossOptions, generator: torch.Generator | None
) -> Encoded:
    with _autocast(batch.images.device, options.bf16):
        return model.encode(batch.images, batch.captions, batch.prompts, generator, options.with_segments)


def _losses(
    model: GroupViT, encoded: Encoded, batch: OnDevice, counts: Sequence[int], options: LossOptions
) -> torch.Tensor:
    """(3,) float32: total, caption loss, multi-label loss, weighted by this rank's share of the rows."""
    with _autocast(batch.images.device, options.bf16):
        found = model.project(encoded)
    everyone = _Everyone(found, batch.concepts, counts) if len(counts) > 1 else None
    scales = model.scales()
    caption_loss = contrastive_loss(
        found.image, found.caption, scales.caption, everyone and everyone.gather("image", "caption")
    )
    prompt_loss = torch.zeros_like(caption_loss)
    if found.prompts is not None:
        loss = partial(
            multi_label_loss,
            prompts=found.prompts,
            scale=scales.prompts,
            reduction=options.reduction,
            concepts=batch.concepts,
        )
        sides = []
        if options.match != "segments":
            sides.append(loss(found.image, gather=everyone and everyone.gather("image", "prompts")))
        if options.match != "pooled":
            assert found.segments is not None, "match=pooled alone goes without"
            gather = everyone and everyone.gather("segments", "prompts")
            sides.append(loss(found.segments, gather=gather, competing=options.match == "compete"))
        prompt_loss = torch.stack(sides).mean()
    share = len(found.image) * len(counts) / sum(counts)
    return share * torch.stack([caption_loss + options.weight * prompt_loss, caption_loss, prompt_loss])


class _Everyone:
    """The features of all ranks by one exchange, for losses that ask for some of them at a time."""

    def __init__(self, found: Projected, concepts: Concepts | None, counts: Sequence[int]) -> None:
        parts = {name: part for name, part in found._asdict().items() if part is not None}
        wide = [part if part.dtype == torch.float64 else part.float() for part in parts.values()]
        numbers = None if concepts is None else torch.cat([concepts.prompts, concepts.known], dim=1)
        features, self._numbers, self._first = distributed.gather(wide, numbers, counts)
        self._features = dict(zip(parts, features, strict=True))

    def gather(self, images: str, texts: str) -> Gather:
        """What ``models.losses`` calls with this rank's rows of these two, or with its concepts' numbers."""

        def found(mine: torch.Tensor) -> tuple[torch.Tensor, int]:
            if not mine.is_floating_point():
                assert self._numbers is not None, "gathered where there are concepts"
                return self._numbers, self._first
            rows = [unit_rows(self._features[name]) for name in (images, texts)]
            return torch.cat([part if part.ndim == 3 else part[:, None] for part in rows], dim=1), self._first

        return found
