"""N processes with their shares of a batch do the step that one process does with all of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from models.groupvit import GroupViT, GroupViTConfig
from models.losses import contrastive_loss, multi_label_loss
from tests.training.launch import horovodrun, run


def step(
    folder: Path,
    counts: list[int],
    pieces: int = 1,
    reduction: str = "log_sum",
    match: str = "pooled",
    texts: str = "prompts",
    dtype: str = "float64",
) -> dict:
    out = folder / f"{len(counts)}-{pieces}-{reduction}-{match}-{texts}-{dtype}.pt"
    arguments = [str(out), json.dumps(counts), str(pieces), reduction, match, texts, dtype]
    launcher = horovodrun(len(counts)) if len(counts) > 1 else []
    done = run([*launcher, sys.executable, "-m", "tests.training.one_step", *arguments])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return torch.load(out, weights_only=True)


def assert_same(one: dict, other: dict) -> None:
    torch.testing.assert_close(one["losses"], other["losses"], rtol=0, atol=1e-5)
    torch.testing.assert_close(one["gradients"], other["gradients"], rtol=0, atol=1e-5)
    assert one["gradients"].norm() > 0.1
    for name, value in one["statistics"].items():
        torch.testing.assert_close(value, other["statistics"][name], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return step(tmp_path_factory.mktemp("alone"), [12])


@pytest.mark.slow
@pytest.mark.parametrize(("counts", "pieces"), [([6, 6], 1), ([7, 5], 1), ([4, 3, 5], 1), ([7, 5], 3)])
def test_processes_together_equal_one(tmp_path: Path, alone: dict, counts: list[int], pieces: int) -> None:
    assert_same(step(tmp_path, counts, pieces), alone)


@pytest.mark.slow
def test_single_precision_differs_by_rounding_alone(tmp_path: Path) -> None:
    together, alone = step(tmp_path, [7, 5], dtype="float32"), step(tmp_path, [12], dtype="float32")
    torch.testing.assert_close(together["losses"], alone["losses"], rtol=1e-5, atol=0)
    difference = (together["gradients"] - alone["gradients"]).norm() / alone["gradients"].norm()
    assert difference < 1e-5


@pytest.mark.slow
def test_mean_of_logs_and_captions_alone_over_processes(tmp_path: Path) -> None:
    for reduction, texts in (("mean_log", "prompts"), ("log_sum", "captions")):
        together = step(tmp_path, [7, 5], 1, reduction, "pooled", texts)
        assert_same(together, step(tmp_path, [12], 1, reduction, "pooled", texts))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reduction", "match", "texts"),
    [
        ("each", "both", "concepts"),
        ("each", "compete", "concepts"),
        ("log_sum", "segments", "concepts"),
        ("each", "pooled", "prompts"),
        ("mean_log", "both", "prompts"),
    ],
)
def test_options_of_the_loss_over_processes_and_in_pieces(
    tmp_path: Path, alone: dict, reduction: str, match: str, texts: str
) -> None:
    whole = step(tmp_path, [12], 1, reduction, match, texts)
    assert (whole["gradients"] - alone["gradients"]).norm() > 0.05 * alone["gradients"].norm()
    for counts, pieces in (([7, 5], 1), ([4, 3, 5], 2), ([12], 3)):
        assert_same(step(tmp_path, counts, pieces, reduction, match, texts), whole)


def test_the_step_equals_the_models_own_forward_and_losses(alone: dict) -> None:
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
    torch.testing.assert_close(alone["losses"], losses, rtol=0, atol=1e-5)
    torch.testing.assert_close(alone["gradients"], gradients, rtol=0, atol=1e-5)
