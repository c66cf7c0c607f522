"""A step in pieces, with the noise of training and in half precision: the gradient is that of one graph over all rows."""

from __future__ import annotations

import copy

import pytest
import torch

from models.groupvit import Encoded, GroupViT, GroupViTConfig
from models.losses import contrastive_loss, multi_label_loss
from training.step import LossOptions, OnDevice, accumulate_gradients

ROWS = 12


@pytest.fixture(scope="module")
def model() -> GroupViT:
    """With Gumbel noise and a stochastic depth that drops every third branch at the last block."""
    torch.manual_seed(0)
    return GroupViT(GroupViTConfig.preset("tiny", gumbel_noise=True, drop_path=0.3)).train().double()


@pytest.fixture(scope="module")
def batch() -> OnDevice:
    source = torch.Generator().manual_seed(1)
    images = torch.randn(ROWS, 3, 32, 32, generator=source).double()
    texts = torch.randint(1, 40000, (ROWS, 4, 16), generator=source)
    texts[:, :, 9] = 49407
    return OnDevice(images, texts[:, 0], texts[:, 1:])


def gradient_of(model: GroupViT) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def in_one_graph(model: GroupViT, batch: OnDevice, pieces: int, seed: int) -> torch.Tensor:
    """The noise is drawn piece by piece, as the step draws it; nothing is computed twice."""
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    parts = []
    for rows in torch.arange(ROWS).tensor_split(pieces):
        parts.append(model.encode(batch.images[rows], batch.captions[rows], batch.prompts[rows], generator))
    columns = zip(*parts, strict=True)
    whole = Encoded(*(None if column[0] is None else torch.cat(column) for column in columns))
    found, scales = model.project(whole), model.scales()
    caption = contrastive_loss(found.image, found.caption, scales.caption)
    (caption + multi_label_loss(found.image, found.prompts, scales.prompts)).backward()
    return gradient_of(model)


def by_the_step(
    model: GroupViT, batch: OnDevice, options: LossOptions, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    model = copy.deepcopy(model)
    losses, sound = accumulate_gradients(model, batch, [ROWS], options, torch.Generator().manual_seed(seed))
    assert sound.all()
    return gradient_of(model), losses


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_with_noise_the_gradient_is_that_of_one_graph(model: GroupViT, batch: OnDevice, pieces: int) -> None:
    expected = in_one_graph(model, batch, pieces, seed=5)
    found, _ = by_the_step(model, batch, LossOptions(pieces=pieces), seed=5)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    other = in_one_graph(model, batch, pieces, seed=6)
    assert (expected - other).norm() > 0.2 * expected.norm(), "the noise makes no difference here"


@pytest.mark.parametrize("pieces", [1, 3])
def test_half_precision_is_used_and_near(model: GroupViT, batch: OnDevice, pieces: int) -> None:
    """bfloat16 has 8 bits, and near-ties of the hard assignments fall the other way: near, and not the same."""
    calm = GroupViT(GroupViTConfig.preset("tiny", gumbel_noise=False, drop_path=0.0)).train()
    calm.load_state_dict({name: value.float() for name, value in model.state_dict().items()})
    small = OnDevice(batch.images.float(), batch.captions, batch.prompts)
    whole, losses = by_the_step(calm, small, LossOptions(pieces=pieces), seed=5)
    half, half_losses = by_the_step(calm, small, LossOptions(pieces=pieces, bf16=True), seed=5)
    assert half.dtype == half_losses.dtype == torch.float32
    assert (half - whole).norm() > 1e-3 * whole.norm()
    assert torch.nn.functional.cosine_similarity(half, whole, dim=0) > 0.95
    torch.testing.assert_close(half_losses, losses, rtol=0.1, atol=0)
