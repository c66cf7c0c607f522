"""A batch to the device of the model, without waiting for it."""

from __future__ import annotations

import torch

from models.losses import Concepts
from models.pixels import normalise
from training.feed.batches import Batch
from training.step import OnDevice

__all__ = ["to_device"]


def to_device(batch: Batch, device: torch.device) -> OnDevice:
    """Bytes travel, and become normalised floats there."""

    def sent(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(device, non_blocking=True)

    images, captions = normalise(sent(batch.images)), sent(batch.captions)
    if batch.prompts is None:
        return OnDevice(images, captions, None)
    concepts = batch.prompts.concepts
    known = None if concepts is None else Concepts(*map(sent, concepts))
    return OnDevice(images, captions, sent(batch.prompts.tokens), known)
