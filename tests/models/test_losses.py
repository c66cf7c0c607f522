"""The contrastive losses against loops over the formula, finite differences, and simulated ranks."""

from __future__ import annotations

import math

import pytest
import torch

from models.losses import contrastive_loss, multi_label_loss

F64 = torch.float64


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a)) / math.sqrt(sum(float(y) ** 2 for y in b))


def by_formula(image, prompts, scale, reduction):
    """Both halves by plain loops: image i, prompt k of image j, softmax over everything on the other side."""
    b, k = len(image), prompts.shape[1]
    image_half = 0.0
    for i in range(b):
        weights = [[math.exp(scale * cosine(image[i], prompts[j, n])) for n in range(k)] for j in range(b)]
        total = sum(sum(row) for row in weights)
        chances = [weight / total for weight in weights[i]]
        if reduction == "log_sum":
            image_half += -math.log(sum(chances)) / b
        else:
            image_half += -sum(math.log(chance) for chance in chances) / k / b
    text_half = 0.0
    for i in range(b):
        for n in range(k):
            weights = [math.exp(scale * cosine(image[j], prompts[i, n])) for j in range(b)]
            text_half += -math.log(weights[i] / sum(weights)) / (b * k)
    return (image_half + text_half) / 2


def features(b, k, seed=0, e=5, dtype=F64):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(b, e, generator=generator, dtype=dtype)
    return image, torch.randn(b, k, e, generator=generator, dtype=dtype) + image[:, None]


@pytest.mark.parametrize("reduction", ["log_sum", "mean_log"])
@pytest.mark.parametrize(("b", "k"), [(1, 1), (1, 3), (4, 1), (5, 3), (7, 2)])
def test_equals_the_formula_written_as_loops(reduction, b, k):
    image, prompts = features(b, k, seed=b)
    found = multi_label_loss(image, prompts, 7.0, reduction)
    assert float(found) == pytest.approx(by_formula(image, prompts, 7.0, reduction), rel=1e-12, abs=1e-14)


def test_one_prompt_is_the_caption_loss_in_both_reductions():
    image, prompts = features(6, 1)
    plain = contrastive_loss(image, prompts[:, 0], 9.0)
    for reduction in ("log_sum", "mean_log"):
        torch.testing.assert_close(multi_label_loss(image, prompts, 9.0, reduction), plain)


def test_the_two_reductions_differ_where_prompts_differ_and_differ_by_log_k_where_they_are_equal():
    image, prompts = features(4, 3)
    log_sum, mean_log = (float(multi_label_loss(image, prompts, 5.0, r)) for r in ("log_sum", "mean_log"))
    assert mean_log > log_sum + 0.01
    same = prompts[:, :1].expand(-1, 3, -1)
    difference = multi_label_loss(image, same, 5.0, "mean_log") - multi_label_loss(
        image, same, 5.0, "log_sum"
    )
    # K equal prompts share the mass: only the image half sees it
    assert float(difference) == pytest.approx(0.5 * math.log(3), rel=1e-12)


@pytest.mark.parametrize("reduction", ["log_sum", "mean_log"])
def test_gradients_equal_finite_differences(reduction):
    image, prompts = features(4, 3)
    scale = torch.tensor(6.0, dtype=F64)
    arguments = tuple(t.requires_grad_() for t in (image, prompts, scale))
    assert torch.autograd.gradcheck(lambda i, p, s: multi_label_loss(i, p, s, reduction), arguments)


def ranks_gradient(images, prompts, weight, scale, world, reduction):
    """Gradient and loss as `world` ranks would have them: their own backward, then the mean over ranks.

    The exchange is played in two passes. First every rank's loss is computed on the gathered values and
    the gradient of every gathered row noted. Then each rank sends back the sum of what all ranks noted
    for its rows, beside what its loss asks of them directly.
    """
    rows = len(images) // world
    slices = [slice(r * rows, (r + 1) * rows) for r in range(world)]
    together = torch.cat([(images @ weight).unsqueeze(1), prompts @ weight], dim=1).detach()
    asked, losses, direct = torch.zeros_like(together), [], []
    for rank, own in enumerate(slices):
        local = weight.detach().clone().requires_grad_()
        temperature = scale.detach().clone().requires_grad_()
        whole = together.clone().requires_grad_()

        def gather(mine, whole=whole, own=own, rank=rank):
            torch.testing.assert_close(
                mine.detach(), torch.nn.functional.normalize(whole[own], dim=-1).detach()
            )
            return torch.nn.functional.normalize(whole, dim=-1), rank * rows

        loss = multi_label_loss(images[own] @ local, prompts[own] @ local, temperature, reduction, gather)
        loss.backward()
        losses.append(loss.detach())
        asked += whole.grad
        direct.append((local.grad, temperature.grad))
    total, scale_total = torch.zeros_like(weight), torch.zeros_like(scale)
    for rank, own in enumerate(slices):
        local = weight.detach().clone().requires_grad_()
        sent = torch.cat([(images[own] @ local).unsqueeze(1), prompts[own] @ local], dim=1)
        (through_gather,) = torch.autograd.grad(sent, local, asked[own])
        total += (direct[rank][0] + through_gather) / world
        scale_total += direct[rank][1] / world
    return torch.stack(losses).mean(), total, scale_total


@pytest.mark.parametrize("reduction", ["log_sum", "mean_log"])
@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_mean_over_ranks_equals_one_process(world, reduction):
    images, prompts = features(6, 3, seed=world)
    weight = torch.randn(5, 4, generator=torch.Generator().manual_seed(9), dtype=F64).requires_grad_()
    scale = torch.tensor(8.0, dtype=F64, requires_grad=True)
    alone = multi_label_loss(images @ weight, prompts @ weight, scale, reduction)
    alone.backward()
    loss, gradient, scale_gradient = ranks_gradient(images, prompts, weight.detach(), scale, world, reduction)
    torch.testing.assert_close(loss, alone.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, weight.grad, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(scale_gradient, scale.grad, rtol=1e-10, atol=1e-12)


def test_a_gather_whose_backward_averages_gives_another_gradient():
    """Why training may not use Horovod's own allgather: the documented requirement is not idle."""
    images, prompts = features(6, 2)
    weight = torch.randn(5, 4, generator=torch.Generator().manual_seed(9), dtype=F64).requires_grad_()
    scale = torch.tensor(8.0, dtype=F64, requires_grad=True)
    multi_label_loss(images @ weight, prompts @ weight, scale).backward()

    def gather(mine):  # two ranks of which the other one's rows arrive without a gradient
        other = torch.nn.functional.normalize(
            torch.cat([(images[3:] @ weight).unsqueeze(1), prompts[3:] @ weight], dim=1), dim=-1
        )
        return torch.cat([mine, other.detach()]), 0

    local = weight.detach().clone().requires_grad_()
    multi_label_loss(images[:3] @ local, prompts[:3] @ local, scale, gather=gather).backward()
    assert not torch.allclose(local.grad, weight.grad, rtol=1e-3)


def test_prompts_equal_to_the_caption_or_to_each_other_stay_finite():
    image, prompts = features(8, 3, dtype=torch.float32)
    prompts[:] = prompts[:1, :1]
    for reduction in ("log_sum", "mean_log"):
        leaf = image.clone().requires_grad_()
        loss = multi_label_loss(leaf, prompts, 100.0, reduction)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(leaf.grad).all()


def test_half_precision_features_under_autocast_are_compared_in_float32():
    image, prompts = features(16, 3, dtype=torch.float32, e=64)
    image, prompts = image.bfloat16(), prompts.bfloat16()
    exact = multi_label_loss(image.double(), prompts.double(), 100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = multi_label_loss(image, prompts, torch.tensor(100.0))
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.parametrize(
    ("image", "prompts"), [((4, 5), (3, 2, 5)), ((4, 5), (4, 5)), ((4, 5), (4, 0, 5)), ((4, 2, 5), (4, 2, 5))]
)
def test_shapes_that_do_not_fit_are_refused(image, prompts):
    with pytest.raises(ValueError, match="expected"):
        multi_label_loss(torch.zeros(image), torch.zeros(prompts), 1.0)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="log_sum or mean_log"):
        multi_label_loss(*features(2, 2), 1.0, "sum")
