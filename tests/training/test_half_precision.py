"""A whole training in bfloat16: it learns what float32 learns, and what is kept stays float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from configs.loading import load_config
from tests.training.launch import TINY
from tests.training.synthetic import write_training_set
from training.train import train

Trained = dict[str, tuple[dict[str, Any], dict[str, Any]]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Summary and last checkpoint of the same two epochs in either precision."""
    folder = tmp_path_factory.mktemp("workspace")
    write_training_set(folder, [50, 46], group_rows=16)
    threads, found = torch.get_num_threads(), {}
    for precision in ("fp32", "bf16"):
        out = folder / precision
        options = [
            f"workspace={folder}",
            f"train.output={out}",
            f"train.precision={precision}",
            "train.epochs=2",
            "train.lr=0.03",  # at 0.3 two ways of rounding alone lead to losses that differ by 3 %
        ]
        summary = train(load_config(None, [*TINY, *options, "train.pictures=0", "train.threads=1"]))
        found[precision] = summary, torch.load(out / "last.pt", weights_only=True)
    torch.set_num_threads(threads)
    return found


def test_the_loss_falls_as_in_float32(trained: Trained) -> None:
    (whole, _), (half, _) = trained["fp32"], trained["bf16"]
    assert half["losses"][1] < 0.9 * half["losses"][0]
    assert half["losses"] == pytest.approx(whole["losses"], rel=0.03)
    assert half["losses"] != whole["losses"], "nothing was computed in bfloat16"
    assert (half["steps"], half["rows"], half["skipped_steps"]) == (whole["steps"], whole["rows"], 0)


def test_weights_and_the_optimiser_stay_in_float32(trained: Trained) -> None:
    (_, whole), (_, half) = trained["fp32"], trained["bf16"]
    for name, value in half["model"].items():
        assert value.dtype == whole["model"][name].dtype, name
        assert value.isfinite().all(), name
    states = half["optimiser"]["state"].values()
    assert {tensor.dtype for state in states for tensor in state.values()} == {torch.float32}
    # Also where rounded values are kept in wide tensors: hardly any weight is one that bfloat16 can hold.
    weights = _weights(half)
    assert (weights == weights.bfloat16().float()).float().mean() < 0.02


def test_the_weights_went_where_float32_went(trained: Trained) -> None:
    whole, half = _weights(trained["fp32"][1]), _weights(trained["bf16"][1])
    assert 0 < (half - whole).norm() < 0.2 * whole.norm()


def _weights(checkpoint: dict[str, Any]) -> torch.Tensor:
    """All matrices as one vector: they begin as random numbers, other weights as 0 and 1."""
    return torch.cat([value.flatten() for value in checkpoint["model"].values() if value.ndim > 1])
