"""The recipe's arithmetic: learning rate, parameter groups, optimiser."""

from __future__ import annotations

import math

import torch
from torch import nn

from configs.training import TrainConfig

__all__ = ["build_optimiser", "learning_rate", "parameter_groups"]

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
