"""What GroupViT promises beyond equality with HF: sizes, randomness, modes, text lengths, precision."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from scipy import stats

from configs.errors import UserError
from models.groupvit import GroupViT, GroupViTConfig
from models.layers.blocks import Block, kept
from models.layers.grouping import AssignAttention, gumbel_noise, hard_assignment
from models.layers.projector import replace_batch_norms
from models.layers.stem import ConvolutionStem, stem_widths
from models.losses import contrastive_loss, multi_label_loss
from models.templates import PROMPT_TEMPLATES
from models.text_encoder import _split_by_length
from models.tokenize import END_TOKEN, START_TOKEN, tokenize, trim
from tests.models.hf_reference import tokens


def tiny(**changes) -> GroupViT:
    torch.manual_seed(0)
    return GroupViT(GroupViTConfig.preset("tiny", **changes))


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_paper_preset_has_the_published_sizes():
    model = GroupViT(GroupViTConfig.preset("paper"))
    assert parameters(model) == 55_726_610
    assert parameters(model.image_encoder) == 28_837_136
    assert parameters(model.text_encoder) == 22_145_792


@pytest.mark.parametrize("name", ["small", "demo", "tiny"])
def test_every_parameter_of_a_preset_learns(name):
    torch.manual_seed(0)
    model = GroupViT(GroupViTConfig.preset(name, image_size=32, patch_size=8)).train()
    captions, prompts = tokens(4, 14, 49408, 0), tokens(8, 9, 49408, 1).unflatten(0, (4, 2))
    features = model.project(model.encode(torch.randn(4, 3, 32, 32), captions, prompts))
    caption_scale, prompt_scale = model.scales()
    loss = contrastive_loss(features.image, features.caption, caption_scale)
    (loss + multi_label_loss(features.image, features.prompts, prompt_scale)).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A batch norm takes out any shift before it; a uniform shift of all keys is invisible to a softmax
    assert [n for n in idle if not n.endswith("bias")] == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image_size": 30}, "multiple of patch_size"),
        ({"width": 33}, "width=33"),
        ({"text_width": 25}, "text_width=25"),
        ({"depths": (1, 1)}, "one entry a stage"),
        ({"group_tokens": (6, 3, 2)}, "the last 0"),
        ({"drop_path": 1.0}, "drop_path"),
    ],
)
def test_contradicting_sizes_name_what_to_change(changes, says):
    with pytest.raises(UserError, match=says):
        GroupViTConfig.preset("tiny", **changes)


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(UserError, match="paper, small, demo, tiny"):
        GroupViTConfig.preset("huge")


def test_configuration_survives_plain_types():
    config = GroupViTConfig.preset("demo", drop_path=0.2)
    assert GroupViTConfig.from_dict(config.to_dict()) == config
    assert all(type(value) in (int, float, bool, str, list) for value in config.to_dict().values())


def test_fifteen_steps_halve_the_loss_on_one_batch():
    model, images, texts = tiny().train(), torch.randn(8, 3, 32, 32), tokens(8, 16, 49408, 0)
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=2e-3), []
    for _ in range(15):
        features = model.project(model.encode(images, texts))
        loss = contrastive_loss(features.image, features.caption, model.scales().caption)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


# --- randomness


def test_gumbel_noise_is_gumbel_distributed_and_finite():
    noise = gumbel_noise(torch.empty(400_000), torch.Generator().manual_seed(1))
    assert torch.isfinite(noise).all()
    assert stats.kstest(noise.numpy()[:50_000], "gumbel_r").pvalue > 1e-3


def test_assignment_with_noise_picks_each_group_as_often_as_the_softmax_says():
    logits = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1).expand(1, 3, 60_000)
    drawn = hard_assignment(logits, gumbel_noise(logits, torch.Generator().manual_seed(2)))
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(drawn.sum(dim=1), torch.ones(1, 60_000))
    torch.testing.assert_close(drawn.mean(dim=2)[0], logits[0, :, 0].softmax(0), rtol=0, atol=0.01)


def test_hard_assignment_has_the_gradient_of_the_softmax():
    logits = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    noise, direction = torch.randn(2, 4, 5, dtype=torch.float64), torch.randn(2, 4, 5, dtype=torch.float64)
    (hard,) = torch.autograd.grad(hard_assignment(logits, noise), logits, direction)
    (soft,) = torch.autograd.grad((logits + noise).softmax(dim=1), logits, direction)
    torch.testing.assert_close(hard, soft)


def test_training_draws_from_the_given_generator_only():
    model, images = tiny(drop_path=0.5).train(), torch.randn(8, 3, 32, 32)

    def pooled(seed):
        return model.encode_image(images, generator=torch.Generator().manual_seed(seed)).pooled

    state = torch.get_rng_state()
    first, again, other = pooled(1), pooled(1), pooled(2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(3)
    free = model.encode_image(images).pooled
    torch.manual_seed(3)
    assert torch.equal(model.encode_image(images).pooled, free)


def test_without_noise_and_drops_training_is_deterministic():
    model, images = tiny(drop_path=0.0, gumbel_noise=False).train(), torch.randn(4, 3, 32, 32)
    assert torch.equal(model.encode_image(images).pooled, model.encode_image(images).pooled)


def test_stochastic_depth_rises_linearly_and_drops_whole_samples():
    model = GroupViT(GroupViTConfig(drop_path=0.11, projector_hidden=8))
    rates = [block.drop_rate for stage in model.image_encoder.stages for block in stage.blocks]
    assert rates == pytest.approx([0.01 * n for n in range(12)])
    assert all(block.drop_rate == 0.0 for block in model.text_encoder.blocks)
    factors = kept(torch.ones(20_000, 2, 3), 0.25, True, torch.Generator().manual_seed(0))
    assert factors.shape == (20_000, 1, 1)
    assert float((factors == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(factors.mean()) == pytest.approx(1.0, abs=0.02)
    assert kept(torch.ones(2, 2, 3), 0.25, False, None) is None


def test_compiled_blocks_compute_what_plain_ones_do():
    torch.manual_seed(0)
    plain = Block(16, 2, 2.0, drop_rate=0.3).double().train()
    compiled = copy.deepcopy(plain)
    compiled.compile_layers()
    for batch, length in ((6, 9), (5, 7)):  # the last batch of an epoch is smaller, texts are cut
        x = torch.randn(batch, length, 16, dtype=torch.float64)
        results = []
        for block in (plain, compiled):
            rows = x.clone().requires_grad_()
            found = block(rows, torch.Generator().manual_seed(3))
            found.square().sum().backward()
            results.append((found, rows.grad, [p.grad for p in block.parameters()]))
        torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-10)


# --- modes


def test_evaluation_does_not_depend_on_the_rest_of_the_batch():
    model, images = tiny().eval(), torch.randn(5, 3, 32, 32)
    with torch.inference_mode():
        whole, alone = model.encode_image(images), model.encode_image(images[3:4])
    torch.testing.assert_close(whole.pooled[3:4], alone.pooled)
    torch.testing.assert_close(whole.segments[3:4], alone.segments)
    for soft_map in whole.assignments:
        torch.testing.assert_close(soft_map.sum(dim=1), torch.ones_like(soft_map[:, 0]))


def test_training_leaves_out_segments_and_maps_unless_asked():
    model, images = tiny().train(), torch.randn(2, 3, 32, 32)
    assert model.encode_image(images).assignments == ()
    assert model.encode_image(images).segments is None
    maps = model.encode_image(images, with_maps=True).assignments
    assert [tuple(soft_map.shape) for soft_map in maps] == [(2, 6, 16), (2, 3, 6)]


def test_resized_positions_follow_a_fused_optimiser_which_tells_of_no_change():
    """Validation while training: evaluated, trained, evaluated again at another size than that of the images."""
    model = GroupViT(GroupViTConfig.preset("tiny")).eval()
    embedding = model.image_encoder.embedding
    optimiser = torch.optim.AdamW([embedding.positions], lr=0.1, fused=True)
    with torch.no_grad():
        before = embedding.positions_for(5, 7).clone()
    model.train()
    embedding.positions.grad = torch.randn_like(embedding.positions)
    optimiser.step()
    model.eval()
    with torch.no_grad():
        after = embedding.positions_for(5, 7)
    assert not torch.equal(after, before)
    assert torch.equal(after, embedding._resize(5, 7))


def test_resized_positions_follow_the_weights():
    model, images = tiny().eval(), torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        before = model.encode_image(images).pooled
        model.image_encoder.embedding.positions.mul_(-3.0)
        after = model.encode_image(images).pooled
        torch.manual_seed(0)
        fresh = tiny().eval()
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(fresh.encode_image(images).pooled, after)
    assert not torch.allclose(before, after)


def test_many_image_sizes_do_not_pile_up_in_memory():
    model = tiny().eval()
    with torch.inference_mode():
        for side in range(1, 30):
            model.encode_image(torch.randn(1, 3, 8 * side, 8))
    assert len(model.image_encoder.embedding._resized) <= 8


def test_an_evaluated_size_can_still_be_trained_on():
    model, images = tiny().eval(), torch.randn(1, 3, 48, 40)
    with torch.inference_mode():
        model.encode_image(images)
    model.encode_image(images).pooled.sum().backward()
    assert model.image_encoder.embedding.positions.grad.abs().sum() > 0


def test_image_sizes_off_the_patch_grid_say_so():
    with pytest.raises(ValueError, match="33 x 32 pixels do not divide into patches of 8"):
        tiny().encode_image(torch.zeros(1, 3, 33, 32))


def test_scales_start_at_the_published_temperature_and_stay_under_100():
    model = tiny()
    assert [scale.item() for scale in model.scales()] == pytest.approx([1 / 0.07, 1 / 0.07], rel=1e-6)
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    assert float(model.scales().caption) == pytest.approx(100.0, rel=1e-6)
    model.clamp_scales()
    scale = model.scales().caption
    scale.backward()
    assert float(scale) == pytest.approx(100.0, rel=1e-6)
    assert model.logit_scale.grad > 0  # it can come down again


# --- texts


def test_captions_and_prompts_share_one_batch_norm():
    model = tiny().train()
    captions, prompts = tokens(4, 14, 49408, 0), tokens(8, 14, 49408, 1)
    found = model.project(model.encode(torch.randn(4, 3, 32, 32), captions, prompts.unflatten(0, (4, 2))))
    together = model.encode_text(torch.cat([captions, prompts]))
    torch.testing.assert_close(found.caption, together[:4])
    torch.testing.assert_close(found.prompts, together[4:].unflatten(0, (4, 2)))
    shorter = trim(prompts, 1)[:, :14]
    again = model.project(model.encode(torch.randn(4, 3, 32, 32), captions, shorter.unflatten(0, (4, 2))))
    torch.testing.assert_close(again.prompts, found.prompts)


def test_no_prompts_is_none():
    model, captions = tiny().train(), tokens(4, 14, 49408, 0)
    for prompts in (None, torch.zeros(4, 0, 14, dtype=torch.int64)):
        encoded = model.encode(torch.randn(4, 3, 32, 32), captions, prompts)
        assert encoded.prompts is None
        assert model.project(encoded).prompts is None


def test_encoding_by_length_gives_what_one_padded_batch_gives(monkeypatch):
    model = tiny(context_length=77).eval().double()
    texts = tokens(40, 77, 49408, 3)
    ends = texts.argmax(dim=-1)
    assert len(_split_by_length(sorted((ends + 1).tolist()))) > 2
    with torch.no_grad():
        torch.testing.assert_close(model.text_encoder(texts), model.text_encoder._encode(texts, ends))


@pytest.mark.parametrize(
    "lengths", [[5], [9, 9, 9], [3] * 500 + [77], list(range(2, 78)), sorted([8, 70] * 64)]
)
def test_length_groups_cover_all_texts_and_never_cost_more(lengths):
    sizes = _split_by_length(lengths)
    assert sum(sizes) == len(lengths)
    assert min(sizes) > 0
    ends = [sum(sizes[: n + 1]) - 1 for n in range(len(sizes))]
    cost = sum(size * lengths[end] for size, end in zip(sizes, ends, strict=True))
    assert cost + 400 * (len(sizes) - 1) <= len(lengths) * lengths[-1]


def test_words_behind_the_end_change_nothing():
    model = tiny().eval()
    texts = tokens(6, 10, 49408, 0)
    noisy = texts.clone()
    noisy[:, 9] = torch.where(texts[:, 9] == 0, 77, texts[:, 9])
    with torch.no_grad():
        torch.testing.assert_close(model.encode_text(noisy), model.encode_text(texts))


def test_text_shapes_are_kept_and_too_long_texts_say_so():
    model = tiny().eval()
    assert model.encode_text(tokens(6, 12, 49408, 0).view(2, 3, 12)).shape == (2, 3, 16)
    with pytest.raises(ValueError, match="context_length=16"):
        model.encode_text(torch.zeros(1, 20, dtype=torch.int64))


def test_tokens_equal_open_clips():
    from open_clip import get_tokenizer

    texts = [
        "a photo of a dog.",
        "",
        "Ünïcode — ☃ caption's",
        "word " * 200,
        "a photo of a dog.",
        "<html> &amp; co",
    ]
    expected = get_tokenizer("ViT-B-32")(texts)
    assert torch.equal(tokenize(texts), expected)
    short = tokenize(texts, 8)
    assert short.dtype == torch.int64
    assert short.shape == (6, 8)
    assert short[3, -1] == END_TOKEN
    assert short[3, 0] == START_TOKEN
    assert tokenize([], 8).shape == (0, 8)


def test_tokenising_from_many_threads_gives_the_same():
    texts = [f"a {word} picture number {n}" for n in range(200) for word in ("blurred", "bright")]
    expected, found = tokenize(texts), []
    fresh = [text + " again" for text in texts]
    workers = [threading.Thread(target=lambda: found.append(tokenize(fresh))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(torch.equal(each, found[0]) for each in found)
    assert torch.equal(tokenize(texts), expected)


def test_trim_cuts_behind_the_longest_text():
    texts = tokenize(["a dog", "a photo of a dog on grass"])
    assert trim(texts).shape == (2, 16)
    assert trim(texts, 1).shape == (2, 9)
    assert trim(texts[:, :9], 8).shape == (2, 9)


def test_there_are_80_templates_with_one_place_each():
    assert len(PROMPT_TEMPLATES) == len(set(PROMPT_TEMPLATES)) == 80
    assert all(template.count("{}") == 1 for template in PROMPT_TEMPLATES)
    assert "a photo of a {}." in PROMPT_TEMPLATES


# --- precision and conversion


def test_bf16_keeps_assignments_and_loss_near_float32():
    model, images, captions = tiny().eval(), torch.randn(16, 3, 32, 32), tokens(16, 14, 49408, 0)
    with torch.no_grad():
        exact = model.encode_image(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model.encode_image(images)
    assert all(soft_map.dtype == torch.float32 for soft_map in rough.assignments)
    torch.testing.assert_close(rough.assignments[0], exact.assignments[0], rtol=0, atol=0.02)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = model.train().project(model.encode(images, captions))
        loss = contrastive_loss(features.image, features.caption, model.scales().caption)
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_replaced_batch_norms_keep_weights_and_names():
    class Marked(torch.nn.BatchNorm1d):
        pass

    model = tiny()
    model.text_projector.norm.running_mean.add_(1.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    replace_batch_norms(model, Marked)
    assert type(model.image_projector.norm) is type(model.text_projector.norm) is Marked
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


# --- what the paper's form does not have


def test_the_stem_halves_with_an_own_convolution_for_each():
    assert stem_widths(8, 128) == (32, 64, 128)
    assert stem_widths(16, 48) == (16, 16, 24, 48)
    stem = ConvolutionStem(4, 40).double()
    images = torch.randn(2, 3, 24, 16, dtype=torch.float64)
    x = images
    for halving, norm in zip(stem.halvings, stem.norms, strict=True):
        x = torch.nn.functional.conv2d(x, halving.weight, halving.bias, stride=2, padding=1)
        mean, deviation = (
            x.mean(dim=1, keepdim=True),
            x.var(dim=1, keepdim=True, unbiased=False).add(1e-5).sqrt(),
        )
        x = (x - mean) / deviation * norm.norm.weight[:, None, None] + norm.norm.bias[:, None, None]
        x = x * 0.5 * (1 + torch.erf(x / 2**0.5))
    x = x + torch.nn.functional.conv2d(x, stem.mix.weight, stem.mix.bias, padding=1)
    expected = torch.stack([x[:, :, row, column] for row in range(6) for column in range(4)], dim=1)
    torch.testing.assert_close(stem(images), expected)


def test_a_stem_of_convolutions_wants_a_power_of_two():
    with pytest.raises(UserError, match="patch_size=12 must be 2, 4, 8, 16 or 32"):
        GroupViTConfig(image_size=48, patch_size=12, stem="convolution")


def test_the_assignment_starts_as_the_paper_has_it_or_by_the_width():
    for gain, wanted in ((0.0, 0.02), (1.5, 1.5 / 64**0.5)):
        torch.manual_seed(0)
        config = GroupViTConfig.preset("tiny", width=64, assign_gain=gain)
        assign = GroupViT(config).image_encoder.stages[0].grouping.assign
        for layer in (assign.q, assign.k, assign.v, assign.out):
            assert layer.weight.std().item() == pytest.approx(wanted, rel=0.05)


def test_a_centred_assignment_is_blind_to_what_a_group_likes_everywhere():
    """A bias of one group's logits over all tokens takes every token without centring, and none with it."""
    torch.manual_seed(0)
    tokens_of_image, groups = torch.randn(3, 20, 16), torch.randn(3, 5, 16)
    shares = {}
    for centred in (False, True):
        assign = AssignAttention(16, gumbel=False, centred=centred).eval()
        torch.manual_seed(1)
        for layer in (assign.q, assign.k):
            torch.nn.init.normal_(layer.weight, std=0.4)
        with torch.no_grad():
            queries = assign.q(groups)
            liked = 40.0 * queries[:, 0].mean(dim=0)
            assign.k.bias.copy_(liked)  # all tokens look alike in the direction of group 0's query
            _, soft = assign(groups, tokens_of_image, True, None)
        shares[centred] = (soft.argmax(dim=1) == 0).float().mean().item()
        if centred:
            with torch.no_grad():
                assign.k.bias.zero_()
                _, without = assign(groups, tokens_of_image, True, None)
            torch.testing.assert_close(soft, without, rtol=0, atol=1e-4)
    assert shares[False] > 0.9
    assert shares[True] < 0.6


def test_segments_share_the_projectors_batch_norm_with_their_mean():
    model = tiny().train()
    images, captions = torch.randn(4, 3, 32, 32), tokens(4, 14, 49408, 0)
    torch.manual_seed(5)
    segments = model.encode(images, captions, with_segments=True)
    torch.manual_seed(5)
    pooled = model.encode(images, captions)
    torch.testing.assert_close(segments.image.mean(dim=1), pooled.image)
    found = model.project(segments)
    rows = torch.cat([segments.image.mean(dim=1, keepdim=True), segments.image], dim=1)
    expected = model.image_projector(rows)
    torch.testing.assert_close(found.image, expected[:, 0])
    torch.testing.assert_close(found.segments, expected[:, 1:])
    assert model.project(pooled).segments is None
