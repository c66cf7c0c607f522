"""The recipe's arithmetic: learning rate, parameter groups, gradients as one buffer."""

from __future__ import annotations

import math

import torch
from torch import nn

from configs.training import TrainConfig
from training import distributed

__all__ = ["GradientBuffer", "build_optimiser", "learning_rate", "parameter_groups"]

_REFERENCE_BATCH = 4096


def learning_rate(config: TrainConfig, global_batch: int, epochs_done: float) -> float:
    """Linear warm-up, then half a cosine, by the share of the epochs done; all scaled by the global batch.

    It depends on epochs rather than steps so that a run whose number of processes changes stays on course.
    """
    scale = global_batch / _REFERENCE_BATCH
    if epochs_done < config.warmup_epochs:
        share = epochs_done / config.warmup_epochs
        return scale * (config.warmup_lr + share * (config.lr - config.warmup_lr))
    rest = max(config.epochs - config.warmup_epochs, 1e-9)
    share = min((epochs_done - config.warmup_epochs) / rest, 1.0)
    return scale * (config.min_lr + 0.5 * (config.lr - config.min_lr) * (1.0 + math.cos(math.pi * share)))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weights of two and more dimensions decay; biases, norms and temperatures do not."""
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        (plain if parameter.ndim <= 1 or name.endswith("bias") else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def build_optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (0.9, 0.999), fused, with its state laid out so that it can be broadcast before the first step."""
    optimiser = torch.optim.AdamW(
        parameter_groups(model, config.weight_decay), lr=0.0, betas=(0.9, 0.999), fused=True
    )
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            optimiser.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
    return optimiser


class GradientBuffer:
    """All gradients in one flat tensor, so that reducing, measuring and clipping are one operation each.

    A few scalars (the losses) travel at its end with the gradients: one exchange a step.
    """

    def __init__(self, model: nn.Module, scalars: int) -> None:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        count = sum(parameter.numel() for parameter in parameters)
        first = parameters[0]
        self._flat = torch.zeros(count + scalars, dtype=first.dtype, device=first.device)
        self.gradients = self._flat[:count]
        self.scalars = self._flat[count:]
        self._views = list(zip(parameters, self._split(parameters), strict=True))
        self.zero()

    def _split(self, parameters: list[nn.Parameter]) -> list[torch.Tensor]:
        pieces = self.gradients.split([parameter.numel() for parameter in parameters])
        return [piece.view_as(parameter) for piece, parameter in zip(pieces, parameters, strict=True)]

    def zero(self) -> None:
        """Clear everything; autograd adds into the buffer from here."""
        self._flat.zero_()
        for parameter, view in self._views:
            parameter.grad = view

    def average(self) -> None:
        """Mean over all ranks, of gradients and scalars."""
        distributed.average_(self._flat, "gradients")

    def clip(self, norm: torch.Tensor, most: float) -> None:
        """Scale the gradients down to norm ``most``, if theirs is larger; 0 leaves them."""
        if most > 0:
            self.gradients.mul_((most / (norm + 1e-6)).clamp(max=1.0))
