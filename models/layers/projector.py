"""The heads that bring image and text features into one space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import nn

__all__ = ["JointNorm", "Projector", "project_together", "replace_batch_norms"]


class Projector(nn.Module):
    """Linear, batch norm, ReLU, linear: (..., width) -> (..., embed_dim).

    While training, the batch norm uses the statistics of all rows given at once.
    """

    def __init__(self, width: int, hidden: int, embed_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.norm: nn.Module = nn.BatchNorm1d(hidden)
        self.fc2 = nn.Linear(hidden, embed_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., width) -> (..., embed_dim)."""
        rows = self.norm(self.fc1(x.flatten(0, -2)))
        return self.fc2(rows.relu_()).unflatten(0, x.shape[:-1])


@runtime_checkable
class JointNorm(Protocol):
    """A batch norm whose statistics are exchanged with others', so that several together cost one exchange."""

    def together(self, norms: Sequence[nn.Module], rows: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """(n, C) of each norm -> normalised; ``self`` is the first of ``norms``, all of its kind."""


def project_together(projectors: Sequence[Projector], inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """(..., width) of each projector -> (..., embed_dim), their batch norms by one exchange where they can."""
    rows = [one.fc1(x.flatten(0, -2)) for one, x in zip(projectors, inputs, strict=True)]
    norms = [one.norm for one in projectors]
    first = norms[0]
    if isinstance(first, JointNorm):
        normal = first.together(norms, rows)
    else:
        normal = [norm(row) for norm, row in zip(norms, rows, strict=True)]
    return [
        one.fc2(row.relu_()).unflatten(0, x.shape[:-1])
        for one, row, x in zip(projectors, normal, inputs, strict=True)
    ]


def replace_batch_norms(module: nn.Module, make: Callable[[int], nn.Module]) -> None:
    """Swap every batch norm for ``make(features)``, keeping its weights and statistics.

    For training on several processes: ``replace_batch_norms(model, hvd.SyncBatchNorm)``. Names in the
    state dict stay the same, so weights go both ways.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            new = make(child.num_features)
            new.load_state_dict(child.state_dict())
            new.to(device=child.weight.device, dtype=child.weight.dtype).train(child.training)
            setattr(module, name, new)
        else:
            replace_batch_norms(child, make)
