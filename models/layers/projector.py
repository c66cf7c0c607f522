"""The heads that bring image and text features into one space."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

__all__ = ["Projector", "replace_batch_norms"]


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
