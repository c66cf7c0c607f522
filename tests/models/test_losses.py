"""The contrastive losses against loops over the formula, finite differences, and simulated ranks."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from models.losses import REDUCTIONS, Concepts, contrastive_loss, multi_label_loss

F64 = torch.float64


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a)) / math.sqrt(sum(float(y) ** 2 for y in b))


def segment_cosine(segments, text, scale):
    """Mean over an image's segments, weighted by the softmax of (at most 20) x cosine."""
    cosines = [cosine(segment, text) for segment in segments]
    weights = [math.exp(min(scale, 20.0) * value) for value in cosines]
    return sum(w * value for w, value in zip(weights, cosines, strict=True)) / sum(weights)


def by_formula(image, prompts, scale, reduction, named=None, known=None):
    """Both halves by plain loops: image i, prompt k of image j, softmax over everything on the other side.

    A prompt whose concept another image knows is left out for that image, in both directions.
    """
    b, k = len(image), prompts.shape[1]
    like = cosine if image.ndim == 2 else lambda i, t: segment_cosine(i, t, scale)

    def mass(i, j, n):
        spared = i != j and named is not None and named[j][n] != 0 and named[j][n] in known[i]
        return 0.0 if spared else math.exp(scale * like(image[i], prompts[j, n]))

    image_half = text_half = 0.0
    for i in range(b):
        own = [mass(i, i, n) for n in range(k)]
        others = sum(mass(i, j, n) for j in range(b) for n in range(k) if j != i)
        if reduction == "log_sum":
            image_half += -math.log(sum(own) / (sum(own) + others)) / b
        elif reduction == "mean_log":
            image_half += -sum(math.log(one / (sum(own) + others)) for one in own) / k / b
        else:
            image_half += -sum(math.log(one / (one + others)) for one in own) / k / b
        for n in range(k):
            text_half += -math.log(own[n] / sum(mass(j, i, n) for j in range(b))) / (b * k)
    return (image_half + text_half) / 2


def features(b, k, seed=0, e=5, dtype=F64):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(b, e, generator=generator, dtype=dtype)
    return image, torch.randn(b, k, e, generator=generator, dtype=dtype) + image[:, None]


def segments_and_concepts(b, k, seed=0, groups=3):
    """Segments (b, G, E), prompts, and few enough concepts that most prompts are known elsewhere; some name none."""
    generator = torch.Generator().manual_seed(100 + seed)
    _, prompts = features(b, k, seed)
    segments = torch.randn(b, groups, prompts.shape[-1], generator=generator, dtype=F64)
    named = torch.randint(0, 5, (b, k), generator=generator)
    return segments, prompts, Concepts(named, torch.randint(0, 7, (b, 3), generator=generator))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("match", ["pooled", "segments"])
@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize("scale", [7.0, 33.0])
def test_every_option_equals_the_formula_written_as_loops(reduction, match, aware, scale):
    for b, k, seed in ((1, 2, 0), (4, 1, 1), (6, 3, 2)):
        segments, prompts, concepts = segments_and_concepts(b, k, seed)
        image = segments if match == "segments" else segments.mean(dim=1)
        lists = (concepts.prompts.tolist(), concepts.known.tolist()) if aware else ()
        given = concepts if aware else None
        found = multi_label_loss(image, prompts, scale, reduction, concepts=given)
        learned = multi_label_loss(image, prompts, torch.tensor(scale, dtype=F64), reduction, concepts=given)
        torch.testing.assert_close(learned, found, rtol=1e-12, atol=1e-13)
        assert float(found) == pytest.approx(
            by_formula(image, prompts, scale, reduction, *lists), rel=1e-11, abs=1e-13
        )


def competing_by_formula(segments, prompts, scale, named, known):
    """Image to text alone: each segment's softmax over the texts that its image does not know, then their mean."""
    b, k = prompts.shape[:2]
    total = 0.0
    for i in range(b):
        texts = [
            (j, n)
            for j in range(b)
            for n in range(k)
            if i == j or named is None or named[j][n] == 0 or named[j][n] not in known[i]
        ]
        chances = []
        for segment in segments[i]:
            masses = {text: math.exp(scale * cosine(segment, prompts[text])) for text in texts}
            chances.append({text: mass / sum(masses.values()) for text, mass in masses.items()})
        for n in range(k):
            total += -math.log(sum(chance[i, n] for chance in chances) / len(chances)) / (b * k)
    return total


@pytest.mark.parametrize("aware", [False, True])
def test_competing_segments_equal_the_formula_written_as_loops(aware):
    for b, k, seed in ((1, 2, 0), (4, 1, 1), (5, 3, 2)):
        segments, prompts, concepts = segments_and_concepts(b, k, seed)
        lists = (concepts.prompts.tolist(), concepts.known.tolist()) if aware else (None, None)
        given = concepts if aware else None
        found = multi_label_loss(segments, prompts, 9.0, "each", concepts=given, competing=True)
        plain = multi_label_loss(segments, prompts, 9.0, "each", concepts=given)
        # the text half is that of segments which do not compete
        text_half = 2 * float(plain) - 2 * image_half_of_each(segments, prompts, 9.0, *lists)
        expected = competing_by_formula(segments, prompts, 9.0, *lists) + text_half
        assert 2 * float(found) == pytest.approx(expected, rel=1e-10, abs=1e-12)


def image_half_of_each(segments, prompts, scale, named, known):
    """Half of the image half of ``each`` by loops, as :func:`by_formula` has it."""
    b, k = prompts.shape[:2]
    total = 0.0
    for i in range(b):
        others = sum(
            math.exp(scale * segment_cosine(segments[i], prompts[j, n], scale))
            for j in range(b)
            for n in range(k)
            if j != i and not (named is not None and named[j][n] != 0 and named[j][n] in known[i])
        )
        for n in range(k):
            own = math.exp(scale * segment_cosine(segments[i], prompts[i, n], scale))
            total += -math.log(own / (own + others)) / (b * k)
    return total / 2


def test_an_images_prompts_share_one_chance_among_competing_segments():
    """Over K different prompts the mean of -log is log K at least, reached by segments that share them out."""
    prompts = torch.eye(6, dtype=F64).view(3, 2, 6)
    shared_out = float(multi_label_loss(prompts.clone(), prompts, 50.0, competing=True))
    one_for_all = float(multi_label_loss(prompts[:, :1].expand(-1, 2, -1), prompts, 50.0, competing=True))
    assert shared_out == pytest.approx(0.5 * math.log(2), abs=1e-6)
    assert one_for_all > 5
    assert float(multi_label_loss(prompts.clone(), prompts, 50.0, "each")) == pytest.approx(0, abs=1e-6)


def test_pooled_images_cannot_compete():
    with pytest.raises(ValueError, match="competing segments"):
        multi_label_loss(*features(3, 2), 5.0, competing=True)


def test_prompts_that_all_others_know_leave_nothing_to_tell_apart_from():
    image, prompts = features(4, 2)
    everything = torch.ones(4, 1, dtype=torch.int64)
    concepts = Concepts(torch.ones(4, 2, dtype=torch.int64), everything)
    image.requires_grad_()
    loss = multi_label_loss(image, prompts, 9.0, "each", concepts=concepts)
    loss.backward()
    assert float(loss) == 0.0
    assert not image.grad.any()


def test_one_segment_is_the_pooled_image():
    image, prompts = features(5, 3)
    for reduction in REDUCTIONS:
        torch.testing.assert_close(
            multi_label_loss(image[:, None], prompts, 8.0, reduction),
            multi_label_loss(image, prompts, 8.0, reduction),
        )


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


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("match", ["pooled", "segments"])
@pytest.mark.parametrize("aware", [False, True])
def test_gradients_equal_finite_differences(reduction, match, aware):
    segments, prompts, concepts = segments_and_concepts(4, 3)
    image = segments if match == "segments" else segments.mean(dim=1)
    scale = torch.tensor(6.0, dtype=F64)
    arguments = tuple(t.requires_grad_() for t in (image, prompts, scale))
    loss = partial(multi_label_loss, reduction=reduction, concepts=concepts if aware else None)
    assert torch.autograd.gradcheck(loss, arguments)


def ranks_gradient(images, prompts, weight, scale, world, reduction, concepts=None):
    """Gradient and loss as `world` ranks would have them: their own backward, then the mean over ranks.

    The exchange is played in two passes. First every rank's loss is computed on the gathered values and
    the gradient of every gathered row noted. Then each rank sends back the sum of what all ranks noted
    for its rows, beside what its loss asks of them directly.
    """
    rows = len(images) // world
    slices = [slice(r * rows, (r + 1) * rows) for r in range(world)]
    parts = images.unsqueeze(1) if images.ndim == 2 else images
    together = torch.cat([parts @ weight, prompts @ weight], dim=1).detach()
    numbers = None if concepts is None else torch.cat(concepts, dim=1)
    asked, losses, direct = torch.zeros_like(together), [], []
    for rank, own in enumerate(slices):
        local = weight.detach().clone().requires_grad_()
        temperature = scale.detach().clone().requires_grad_()
        whole = together.clone().requires_grad_()

        def gather(mine, whole=whole, own=own, rank=rank):
            if mine.dtype == torch.int64:
                assert torch.equal(mine, numbers[own])
                return numbers, rank * rows
            torch.testing.assert_close(
                mine.detach(), torch.nn.functional.normalize(whole[own], dim=-1).detach()
            )
            return torch.nn.functional.normalize(whole, dim=-1), rank * rows

        shared = None if concepts is None else Concepts(*(part[own] for part in concepts))
        loss = multi_label_loss(
            images[own] @ local, prompts[own] @ local, temperature, reduction, gather, shared
        )
        loss.backward()
        losses.append(loss.detach())
        asked += whole.grad
        direct.append((local.grad, temperature.grad))
    total, scale_total = torch.zeros_like(weight), torch.zeros_like(scale)
    for rank, own in enumerate(slices):
        local = weight.detach().clone().requires_grad_()
        sent = torch.cat([parts[own] @ local, prompts[own] @ local], dim=1)
        (through_gather,) = torch.autograd.grad(sent, local, asked[own])
        total += (direct[rank][0] + through_gather) / world
        scale_total += direct[rank][1] / world
    return torch.stack(losses).mean(), total, scale_total


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("world", [1, 2, 3, 6])
@pytest.mark.parametrize("match", ["pooled", "segments, archive-aware"])
def test_mean_over_ranks_equals_one_process(world, reduction, match):
    segments, prompts, concepts = segments_and_concepts(6, 3, seed=world)
    images, concepts = (segments.mean(dim=1), None) if match == "pooled" else (segments, concepts)
    weight = torch.randn(5, 4, generator=torch.Generator().manual_seed(9), dtype=F64).requires_grad_()
    scale = torch.tensor(8.0, dtype=F64, requires_grad=True)
    alone = multi_label_loss(images @ weight, prompts @ weight, scale, reduction, concepts=concepts)
    alone.backward()
    loss, gradient, scale_gradient = ranks_gradient(
        images, prompts, weight.detach(), scale, world, reduction, concepts
    )
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
    ("image", "prompts"),
    [((4, 5), (3, 2, 5)), ((4, 5), (4, 5)), ((4, 5), (4, 0, 5)), ((4, 2, 2, 5), (4, 2, 5))],
)
def test_shapes_that_do_not_fit_are_refused(image, prompts):
    with pytest.raises(ValueError, match="expected"):
        multi_label_loss(torch.zeros(image), torch.zeros(prompts), 1.0)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="log_sum, mean_log, each"):
        multi_label_loss(*features(2, 2), 1.0, "sum")
