"""Gradients in one flat tensor, exchanged in buckets while the backward pass that makes them still runs.

Horovod's own optimiser would exchange each parameter for itself and copy them together and apart again; here
neighbours lie side by side from the start, and a bucket is a stretch of the flat tensor. It is sent as soon as the
last gradient of it is there. What a step does not reach (the prompts' temperature, where there are none) is sent
at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from training import distributed

__all__ = ["GradientBuffer"]

_ALIGNED = 16
"""Bytes: a gradient begins where vector instructions and the fused optimiser like it."""
_BUCKET = 1 << 24
"""Bytes at which a bucket is full: 14 buckets at the paper's size."""


@dataclass
class _Bucket:
    number: int
    kind: str
    first: int
    last: int = 0
    parameters: set[int] = field(default_factory=set)
    """places of its parameters"""
    missing: set[int] = field(default_factory=set)
    handle: Any = None
    sent: bool = False


class GradientBuffer:
    """All gradients in one flat tensor, so that reducing, measuring and clipping are one operation each.

    Between neighbours there may be a few zeros, so that each begins at a multiple of 16 bytes. A few scalars (the
    losses) travel with the gradients.
    """

    def __init__(self, model: nn.Module, scalars: int) -> None:
        named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
        first = named[0][1]
        unit = _ALIGNED // first.element_size()
        self._buckets: list[_Bucket] = []
        self._bucket_of: list[_Bucket] = []
        starts, used = [], 0
        for place, (name, parameter) in enumerate(named):
            kind = "encoders" if "encoder" in name.split(".")[0] else "heads"
            bucket = self._buckets[-1] if self._buckets else None
            if (
                bucket is None
                or bucket.kind != kind
                or (used - bucket.first) * first.element_size() >= _BUCKET
            ):
                bucket = _Bucket(len(self._buckets), kind, used)
                self._buckets.append(bucket)
            starts.append(used)
            used += -(-parameter.numel() // unit) * unit
            bucket.last = used
            bucket.parameters.add(place)
            self._bucket_of.append(bucket)
        self._flat = torch.zeros(used + scalars, dtype=first.dtype, device=first.device)
        self.gradients = self._flat[:used]
        self.scalars = self._flat[used:]
        self._views = [
            (parameter, self.gradients[start : start + parameter.numel()].view_as(parameter))
            for start, (_, parameter) in zip(starts, named, strict=True)
        ]
        if distributed.launched():
            for place, (_, parameter) in enumerate(named):
                parameter.register_post_accumulate_grad_hook(partial(self._arrived, place))
        self.zero()

    def zero(self) -> None:
        """Clear everything; autograd adds into the buffer from here."""
        self._flat.zero_()
        for parameter, view in self._views:
            parameter.grad = view
        for bucket in self._buckets:
            bucket.missing, bucket.handle, bucket.sent = set(), None, False

    def expect(self, *kinds: str) -> None:
        """The next backward is the last that adds to the gradients of the heads, of the encoders, or of both."""
        if distributed.size() == 1:
            return
        for bucket in self._buckets:
            if bucket.kind in kinds:
                bucket.missing = set(bucket.parameters)

    def _arrived(self, place: int, _: torch.Tensor) -> None:
        bucket = self._bucket_of[place]
        if bucket.sent:
            raise RuntimeError("a gradient was added to after its exchange began")
        if place in bucket.missing:
            bucket.missing.remove(place)
            if not bucket.missing:
                self._send(bucket)

    def _send(self, bucket: _Bucket) -> None:
        bucket.sent = True
        part = self.gradients[bucket.first : bucket.last]
        bucket.handle = distributed.start_average(part, f"gradients.{bucket.number}")

    def average(self) -> None:
        """Mean over all ranks, of gradients and scalars: sends what has not been sent, waits for all of it."""
        if distributed.size() == 1:
            return
        handles = [distributed.start_average(self.scalars, "losses")]
        for bucket in self._buckets:
            if not bucket.sent:
                self._send(bucket)
        for handle in (*handles, *(bucket.handle for bucket in self._buckets)):
            distributed.finish(handle)

    def clip(self, norm: torch.Tensor, most: float) -> None:
        """Scale the gradients down to norm ``most``, if theirs is larger; 0 leaves them."""
        if most > 0:
            self.gradients.mul_((most / (norm + 1e-6)).clamp(max=1.0))
