"""Our GroupViT equals Hugging Face's, weight for weight: features, maps, logits, loss and gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from models.hf import convert_hf_state_dict
from models.layers import grouping
from models.losses import contrastive_loss
from tests.models.hf_reference import PAPER, SMALL, pair, tokens

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def outputs(ours, images, texts):
    with torch.no_grad():
        image, text = ours.encode_image(images), ours.encode_text(texts)
        logits = ours.scales().caption * (
            functional.normalize(image.pooled, dim=-1) @ functional.normalize(text, dim=-1).T
        )
    return image, text, logits


@pytest.mark.parametrize(("values", "seed"), [(SMALL, 0), (SMALL, 1), (SMALL, 2), (PAPER, 3)])
def test_features_maps_and_logits_equal_hf(values, seed):
    reference, ours = pair(values, seed)
    side = ours.config.image_size
    images = torch.randn(3, 3, side, side)
    texts = tokens(3, ours.config.context_length, ours.config.vocab_size, seed)
    with torch.no_grad():
        expected = reference(input_ids=texts, pixel_values=images, output_attentions=True)
        raw_image = reference.get_image_features(images).pooler_output
        raw_text = reference.get_text_features(texts).pooler_output
        segments = reference.visual_projection(
            expected.vision_model_output.last_hidden_state.flatten(0, 1)
        ).unflatten(0, (3, -1))
    image, text, logits = outputs(ours, images, texts)
    torch.testing.assert_close(image.pooled, raw_image, **TOLERANCE)
    torch.testing.assert_close(text, raw_text, **TOLERANCE)
    torch.testing.assert_close(image.segments, segments, **TOLERANCE)
    torch.testing.assert_close(logits, expected.logits_per_image, **TOLERANCE)
    maps = expected.vision_model_output.attentions
    assert len(image.assignments) == len(maps) == 2
    for mine, theirs in zip(image.assignments, maps, strict=True):
        torch.testing.assert_close(mine, theirs, **TOLERANCE)
        # several groups win, and not by a hair: else equality would say little
        assert len(mine.argmax(dim=1).unique()) > 1
        assert mine.std() > 0.01


@pytest.mark.parametrize("size", [(64, 64), (24, 24), (48, 80), (96, 40)])
def test_other_image_sizes_equal_hf_with_resized_positions(size):
    reference, ours = pair(SMALL, 5)
    embeddings = reference.vision_model.embeddings
    original = embeddings.forward
    embeddings.forward = lambda pixels: original(pixels, interpolate_pos_encoding=True)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = reference.vision_model(images, output_attentions=True)
        image = ours.encode_image(images)
        again = ours.encode_image(images)
    raw = reference.visual_projection(expected.pooler_output).detach()
    torch.testing.assert_close(image.pooled, raw, **TOLERANCE)
    for mine, theirs in zip(image.assignments, expected.attentions, strict=True):
        torch.testing.assert_close(mine, theirs, **TOLERANCE)
    assert image.grid == (size[0] // 8, size[1] // 8)
    assert image.assignments[0].shape == (2, 10, size[0] * size[1] // 64)
    torch.testing.assert_close(image.pooled, again.pooled, rtol=0, atol=0)


def same_noise(monkeypatch, seed):
    """Both models draw the same Gumbel noise: HF by its own sampler, replaced at the logits' door."""
    from transformers.models.groupvit import modeling_groupvit

    def noise(like, generator=None):
        exponential = torch.empty(like.shape, dtype=like.dtype).exponential_(generator=source[0])
        return -exponential.log()

    source = [torch.Generator().manual_seed(seed)]
    plain = modeling_groupvit.hard_softmax
    monkeypatch.setattr(
        modeling_groupvit,
        "gumbel_softmax",
        lambda logits, tau=1, hard=False, dim=-1: plain(logits + noise(logits), dim),
    )
    monkeypatch.setattr(grouping, "gumbel_noise", noise)
    return lambda: source.__setitem__(0, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", [0, 1])
def test_training_loss_and_every_gradient_equal_hf(monkeypatch, seed):
    reference, ours = pair(SMALL, seed, torch.float64)
    rewind = same_noise(monkeypatch, seed)
    for block in ours.modules():  # HF has no stochastic depth
        if hasattr(block, "drop_rate"):
            block.drop_rate = 0.0
    reference.train(), ours.train()
    images = torch.randn(4, 3, 48, 48, dtype=torch.float64)
    texts = tokens(4, 18, 120, seed)
    expected = reference(input_ids=texts, pixel_values=images, return_loss=True).loss
    expected.backward()
    rewind()
    features = ours.project(ours.encode(images, texts))
    loss = contrastive_loss(features.image, features.caption, ours.scales().caption)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    gradients = convert_hf_state_dict(
        {name: parameter.grad for name, parameter in reference.named_parameters()}, ours.config
    )
    compared = 0
    for name, parameter in ours.named_parameters():
        if name == "multi_label_logit_scale":
            assert parameter.grad is None
            continue
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-7, atol=1e-10, msg=name)
        compared += 1
    assert compared == len(gradients) - 1
    # the batch norms' running statistics moved alike
    buffers = convert_hf_state_dict(reference.state_dict(), ours.config)
    torch.testing.assert_close(
        ours.text_projector.norm.running_var, buffers["text_projector.norm.running_var"]
    )
