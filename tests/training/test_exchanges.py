"""How often a step waits for the other processes, what it exchanges beside its own work, and that it waits for no device."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from models.groupvit import GroupViT, GroupViTConfig
from models.losses import Concepts
from models.pixels import normalise
from tests.training.launch import environment, horovodrun, run
from tests.training.one_step import Case
from training import gradients
from training.gradients import GradientBuffer
from training.step import LossOptions, OnDevice, accumulate_gradients

CASES = [
    Case((7, 5), 1, match="both", texts="concepts", dtype="float32"),
    Case((7, 5), 3, match="compete", texts="concepts", dtype="float32"),
    Case((7, 5), 1, texts="captions", dtype="float32"),
]


def exchanged(folder: Path) -> tuple[Counter[str], list[dict]]:
    """Names of the exchanges of a step of each case, from Horovod's own timeline; what the steps stored."""
    timeline, out = folder / "timeline.json", folder / "out.pt"
    arguments = [str(out), json.dumps([*map(asdict, CASES)])]
    launcher = [*horovodrun(2), "--timeline-filename", str(timeline)]
    done = run([*launcher, sys.executable, "-m", "tests.training.one_step", *arguments])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    events = json.loads(timeline.read_text().rstrip().rstrip(",").rstrip("]") + "]")
    named = [event for event in events if "name" in event.get("args", {})]
    tensors = {event["pid"]: event["args"]["name"] for event in named}
    begun = [event for event in events if event["ph"] == "B" and event["name"].startswith("NEGOTIATE_")]
    return Counter(tensors[event["pid"]] for event in begun), torch.load(out, weights_only=True)


@pytest.mark.slow
def test_a_step_waits_four_times_and_sends_gradients_beside_its_backward(tmp_path: Path) -> None:
    names, stored = exchanged(tmp_path)
    beside = {name: count for name, count in names.items() if "gradients." in name or "losses" in name}
    waited = {name: count for name, count in names.items() if name not in beside}
    assert sum(waited.values()) == 4 * len(CASES), waited
    for kind in (".norm.", ".gather.", ".norm.backward.", ".gather.backward."):
        assert any(kind in name for name in waited)
    assert len(beside) == len(stored[0]["buckets"]) + 1
    assert set(beside.values()) == {len(CASES)}
    assert stored[0]["sent"] == stored[1]["sent"] == stored[0]["buckets"], (
        "not all were sent beside the backward"
    )
    assert "encoders" in stored[2]["sent"]


def test_gradients_begin_at_multiples_of_16_bytes_and_buckets_cover_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gradients, "_BUCKET", 1 << 14)
    for dtype in (torch.float32, torch.float64):
        model = GroupViT(GroupViTConfig.preset("tiny")).to(dtype)
        assert any(parameter.numel() % 4 for parameter in model.parameters()), "padding is not asked for"
        buffer = GradientBuffer(model, scalars=3)
        start = buffer.gradients.data_ptr()
        assert start % 16 == 0
        places = sorted((p.grad.data_ptr() - start, p.grad.nbytes) for p in model.parameters())
        assert all(place % 16 == 0 for place, _ in places)
        assert all(a + size <= b for (a, size), (b, _) in itertools.pairwise(places)), "they overlap"
        buckets = buffer._buckets
        assert len(buckets) > 5
        assert [bucket.first for bucket in buckets[1:]] == [bucket.last for bucket in buckets[:-1]]
        assert (buckets[0].first, buckets[-1].last) == (0, len(buffer.gradients))
        assert sum(len(bucket.parameters) for bucket in buckets) == len(places)


@pytest.mark.parametrize("match", ["pooled", "both", "compete"])
def test_a_step_asks_the_device_for_no_value(match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device ``meta`` tensors have no values: whatever waits for one (item, nonzero, a copy) fails there."""
    model = GroupViT(GroupViTConfig.preset("tiny", gumbel_noise=True, drop_path=0.1)).train().to("meta")
    with torch.device("meta"):
        pixels = torch.zeros(6, 32, 32, 3, dtype=torch.uint8)
        texts = torch.zeros(6, 4, 16, dtype=torch.int64)
        concepts = Concepts(torch.zeros(6, 3, dtype=torch.int64), torch.zeros(6, 5, dtype=torch.int64))
    monkeypatch.setattr(
        torch, "autocast", lambda *_, **__: contextlib.nullcontext()
    )  # there is none for meta
    buffer = GradientBuffer(model, scalars=3)
    options = LossOptions("each", match=match)

    def step() -> None:
        buffer.zero()
        batch = OnDevice(normalise(pixels), texts[:, 0], texts[:, 1:], concepts)
        losses, sound = accumulate_gradients(model, batch, [6], options, None, buffer)
        buffer.scalars.copy_(losses)
        norm = buffer.gradients.norm()
        buffer.clip(norm, 5.0)
        assert (~sound).device.type == norm.device.type == "meta"

    step()
    made: list[object] = []
    for name in ("tensor", "as_tensor", "from_numpy"):  # what brings values of the host to the device
        monkeypatch.setattr(torch, name, lambda *values, **_: made.append(values))
    step()
    assert made == []


def test_a_gradient_after_its_exchange_is_an_error_and_not_lost() -> None:
    model = GroupViT(GroupViTConfig.preset("tiny"))
    buffer = GradientBuffer(model, scalars=1)
    buffer._buckets[0].sent = True
    with pytest.raises(RuntimeError, match="after its exchange began"):
        buffer._arrived(0, model.logit_scale)
    assert "HOROVOD_RANK" not in environment()
