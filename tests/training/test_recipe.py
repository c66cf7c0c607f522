"""The recipe's arithmetic against formulas written out and torch's own functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from configs.training import TrainConfig
from models.groupvit import GroupViT, GroupViTConfig
from training.gradients import GradientBuffer
from training.recipe import build_optimiser, learning_rate, parameter_groups
from training.sync_norm import SyncBatchNorm


def test_published_rates_at_the_published_batch() -> None:
    config = TrainConfig()
    assert learning_rate(config, 4096, 0.0) == pytest.approx(4e-6)
    assert learning_rate(config, 4096, 1.0) == pytest.approx((4e-6 + 1.6e-3) / 2)
    assert learning_rate(config, 4096, 2.0) == pytest.approx(1.6e-3)
    assert learning_rate(config, 4096, 16.0) == pytest.approx((1.6e-3 + 4e-5) / 2)
    assert learning_rate(config, 4096, 30.0) == pytest.approx(4e-5)
    assert learning_rate(config, 1024, 2.0) == pytest.approx(4e-4)


def test_cosine_equals_torchs_scheduler() -> None:
    config = TrainConfig(epochs=12, warmup_epochs=2)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.lr)
    scheduler = CosineAnnealingLR(optimiser, T_max=100, eta_min=config.min_lr)
    for step in range(100):
        assert learning_rate(config, 4096, 2 + step / 10) == pytest.approx(
            scheduler.get_last_lr()[0], rel=1e-6
        )
        optimiser.step()
        scheduler.step()


def test_only_weights_of_two_and_more_dimensions_decay() -> None:
    model = GroupViT(GroupViTConfig.preset("tiny"))
    decayed, plain = parameter_groups(model, 0.05)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    kept = {names[id(parameter)] for parameter in plain["params"]}
    assert {
        "logit_scale",
        "multi_label_logit_scale",
        "image_encoder.norm.weight",
        "image_projector.fc1.bias",
    } <= kept
    assert len(decayed["params"]) + len(plain["params"]) == len(names)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)


def test_gradient_buffer_clips_as_torch_does() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(7, 5), nn.Linear(7, 5)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 7) * 20
    buffer = GradientBuffer(ours, scalars=2)
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    norm = buffer.gradients.norm()
    expected = nn.utils.clip_grad_norm_(theirs.parameters(), 5.0)
    buffer.clip(norm, 5.0)
    torch.testing.assert_close(norm, expected)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)
    for parameter in ours.parameters():
        assert parameter.grad.untyped_storage().data_ptr() == buffer.gradients.untyped_storage().data_ptr()
    buffer.zero()
    assert not ours.bias.grad.any()
    assert not buffer.scalars.any()


def test_the_optimiser_skips_on_its_flag_and_steps_as_adamw_does() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    optimiser = build_optimiser(ours, TrainConfig())
    groups = [
        {"params": [theirs.weight], "weight_decay": 0.05},
        {"params": [theirs.bias], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.999))
    source = np.random.default_rng(0)
    for step in range(6):
        gradients = [
            torch.tensor(source.normal(size=tuple(p.shape)), dtype=torch.float32) for p in ours.parameters()
        ]
        skip = step in (1, 4)
        for group in optimiser.param_groups:
            group["lr"] = 0.1
        for parameter, gradient in zip(ours.parameters(), gradients, strict=True):
            parameter.grad = gradient * (math.nan if skip else 1)
        optimiser.found_inf = torch.tensor(float(skip))
        optimiser.step()
        if not skip:
            for parameter, gradient in zip(theirs.parameters(), gradients, strict=True):
                parameter.grad = gradient
            reference.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


def test_sync_batch_norm_alone_is_batch_norm() -> None:
    torch.manual_seed(0)
    ours, theirs = SyncBatchNorm(6), nn.BatchNorm1d(6)
    x = torch.randn(9, 6)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
