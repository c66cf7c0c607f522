"""Which precision ``auto`` comes to, and that a training that goes on keeps to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs.loading import load_config
from models.groupvit import GroupViT, GroupViTConfig
from tests.training.synthetic import write_training_set
from training import precision
from training.gradients import GradientBuffer
from training.precision import choose_precision
from training.step import LossOptions
from training.train import train

OPTIONS = [
    "train.model=tiny", "train.batch_size=8", "train.workers=0", "train.lr=0.01", "train.pictures=0", "train.reader=arrow",
    "train.threads=1",
]  # fmt: skip


@pytest.fixture
def model() -> GroupViT:
    torch.manual_seed(0)
    return GroupViT(GroupViTConfig.preset("tiny")).train()


def chosen(model: GroupViT, wanted: str = "auto") -> str:
    return choose_precision(wanted, model, GradientBuffer(model, 3), LossOptions(), 8, 3)


def test_what_is_faster_is_taken_and_a_draw_is_float32(
    model: GroupViT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    for fp32, bf16, expected in ((1.0, 0.5, "bf16"), (1.0, 0.95, "fp32"), (1.0, 2.0, "fp32")):
        found = {"fp32": fp32, "bf16": bf16}
        monkeypatch.setattr(precision, "_measured", lambda *_, found=found: found)
        assert chosen(model) == expected


def test_without_instructions_for_it_or_where_it_is_said_nothing_is_measured(
    model: GroupViT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_measured", lambda *_: pytest.fail("measured"))
    assert chosen(model, "bf16") == "bf16"
    assert chosen(model, "fp32") == "fp32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True})
    assert chosen(model) == "fp32"


@pytest.mark.parametrize("prompts", [0, 3])
def test_measuring_leaves_the_model_the_gradients_and_the_random_state_alone(
    model: GroupViT, prompts: int
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, buffer = torch.get_rng_state(), GradientBuffer(model, 3)
    seconds = precision._measured(
        model, buffer, LossOptions(match="both" if prompts else "pooled"), 4, prompts
    )
    assert min(seconds.values()) > 0
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not buffer.gradients.any()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_training_that_goes_on_keeps_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_training_set(tmp_path, [24], group_rows=8)
    last = tmp_path / "training" / "last.pt"
    threads = torch.get_num_threads()
    try:
        train(load_config(None, [f"workspace={tmp_path}", *OPTIONS, "train.epochs=1"]))
        content = torch.load(last, weights_only=True)
        found = content["progress"]["precision"]
        assert found in ("fp32", "bf16")
        other = {"fp32": "bf16", "bf16": "fp32"}[found]
        content["progress"]["precision"] = other
        torch.save(content, last)
        capsys.readouterr()
        train(load_config(None, [f"workspace={tmp_path}", *OPTIONS, "train.epochs=2"]))
        assert "precision:" not in capsys.readouterr().out
        assert torch.load(last, weights_only=True)["progress"]["precision"] == other
    finally:
        torch.set_num_threads(threads)
