"""N processes with their shares of a batch do the step that one process does with all of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest
import torch

from models.groupvit import GroupViT, GroupViTConfig
from models.losses import contrastive_loss, multi_label_loss
from tests.training.launch import horovodrun, run
from tests.training.one_step import Case

WHOLE = Case()
TOGETHER = [Case((6, 6)), Case((7, 5)), Case((4, 3, 5)), Case((7, 5), pieces=3)]
SINGLE, HALF = Case(dtype="float32"), Case(dtype="bfloat16")
OTHERS = [Case(reduction="mean_log"), Case(texts="captions")]
OPTIONS = [
    Case(reduction="each", match="both", texts="concepts"),
    Case(reduction="each", match="compete", texts="concepts"),
    Case(match="segments", texts="concepts"),
    Case(reduction="each"),
    Case(reduction="mean_log", match="both"),
]
SHARES = [{"counts": (7, 5)}, {"counts": (4, 3, 5), "pieces": 2}, {"counts": (12,), "pieces": 3}]

Step = Callable[[Case], dict]


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> Step:
    """What each case gives. All cases of one, of two and of three processes are one start of these."""
    cases = [WHOLE, *TOGETHER, SINGLE, replace(SINGLE, counts=(7, 5)), HALF, replace(HALF, counts=(7, 5))]
    cases += [replace(case, counts=counts) for case in OTHERS for counts in ((12,), (7, 5))]
    cases += [replace(case, **share) for case in OPTIONS for share in ({}, *SHARES)]
    folder, found = tmp_path_factory.mktemp("steps"), {}
    for processes in (1, 2, 3):
        own, out = [case for case in cases if len(case.counts) == processes], folder / f"{processes}.pt"
        launcher = horovodrun(processes) if processes > 1 else []
        command = [sys.executable, "-m", "tests.training.one_step", str(out), json.dumps([*map(asdict, own)])]
        done = run([*launcher, *command])
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        found.update(zip(own, torch.load(out, weights_only=True), strict=True))
    return found.__getitem__


def assert_same(one: dict, other: dict) -> None:
    torch.testing.assert_close(one["losses"], other["losses"], rtol=0, atol=1e-5)
    torch.testing.assert_close(one["gradients"], other["gradients"], rtol=0, atol=1e-5)
    assert one["gradients"].norm() > 0.1
    for name, value in one["statistics"].items():
        torch.testing.assert_close(value, other["statistics"][name], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", TOGETHER, ids=str)
def test_processes_together_equal_one(step: Step, case: Case) -> None:
    assert_same(step(case), step(WHOLE))


def test_single_precision_differs_by_rounding_alone(step: Step) -> None:
    together, alone = step(replace(SINGLE, counts=(7, 5))), step(SINGLE)
    torch.testing.assert_close(together["losses"], alone["losses"], rtol=1e-5, atol=0)
    difference = (together["gradients"] - alone["gradients"]).norm() / alone["gradients"].norm()
    assert difference < 1e-5


def test_half_precision_over_processes_is_that_of_one(step: Step) -> None:
    """Autocast rounds each row alike wherever it is, so that losses and statistics are the same. A weight's gradient is a
    sum over rows that is rounded once a process: they differ by less than bfloat16 itself makes of them."""
    alone, together = step(HALF), step(replace(HALF, counts=(7, 5)))
    torch.testing.assert_close(together["losses"], alone["losses"], rtol=0, atol=1e-5)
    for name, value in alone["statistics"].items():
        torch.testing.assert_close(together["statistics"][name], value, rtol=0, atol=1e-5)
    rounding = (alone["gradients"] - step(SINGLE)["gradients"]).norm()
    assert 0 < (together["gradients"] - alone["gradients"]).norm() < 0.75 * rounding
    assert torch.cosine_similarity(together["gradients"], alone["gradients"], dim=0) > 0.99


@pytest.mark.parametrize("case", OTHERS, ids=str)
def test_mean_of_logs_and_captions_alone_over_processes(step: Step, case: Case) -> None:
    assert_same(step(replace(case, counts=(7, 5))), step(case))


@pytest.mark.parametrize("case", OPTIONS, ids=str)
def test_options_of_the_loss_over_processes_and_in_pieces(step: Step, case: Case) -> None:
    whole, plain = step(case), step(WHOLE)
    assert (whole["gradients"] - plain["gradients"]).norm() > 0.05 * plain["gradients"].norm()
    for share in SHARES:
        assert_same(step(replace(case, **share)), whole)


def test_the_step_equals_the_models_own_forward_and_losses(step: Step) -> None:
    torch.manual_seed(0)
    model = GroupViT(GroupViTConfig.preset("tiny", gumbel_noise=False, drop_path=0.0)).train().double()
    source = torch.Generator().manual_seed(1)
    images = torch.randn(12, 3, 32, 32, generator=source).double()
    texts = torch.randint(1, 40000, (12, 4, 16), generator=source)
    texts[:, :, 9] = 49407
    found = model.project(model.encode(images, texts[:, 0], texts[:, 1:]))
    scales = model.scales()
    caption = contrastive_loss(found.image, found.caption, scales.caption)
    prompt = multi_label_loss(found.image, found.prompts, scales.prompts)
    (caption + prompt).backward()
    gradients = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    losses = torch.stack([caption + prompt, caption, prompt]).detach()
    torch.testing.assert_close(step(WHOLE)["losses"], losses, rtol=0, atol=1e-5)
    torch.testing.assert_close(step(WHOLE)["gradients"], gradients, rtol=0, atol=1e-5)
