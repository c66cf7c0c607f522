"""Training steps of this process' share of a fixed batch; rank 0 stores losses, gradients and statistics of each.

Run by test_step.py under horovodrun with several processes, and alone for the whole batch:
``python -m tests.training.one_step OUT.pt CASES``, where CASES is a JSON list of the fields of ``Case``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import torch

from models.groupvit import GroupViT, GroupViTConfig
from models.layers.projector import replace_batch_norms
from models.losses import Concepts
from training import distributed
from training.gradients import GradientBuffer
from training.step import LossOptions, OnDevice, accumulate_gradients
from training.sync_norm import SyncBatchNorm


@dataclass(frozen=True)
class Case:
    """A step: rows of every process, in how many pieces, and the options of its losses."""

    counts: tuple[int, ...] = (12,)
    pieces: int = 1
    reduction: str = "log_sum"
    match: str = "pooled"
    texts: str = "prompts"
    """prompts | concepts (prompts, and what is known of other images) | captions (alone)"""
    dtype: str = "float64"
    """or float32, or bfloat16 (autocast over float32)"""


def take_step(case: Case) -> dict:
    torch.manual_seed(0)
    dtype = torch.float64 if case.dtype == "float64" else torch.float32  # bfloat16: autocast over float32
    model = GroupViT(GroupViTConfig.preset("tiny", gumbel_noise=False, drop_path=0.0)).train().to(dtype)
    if distributed.launched():
        replace_batch_norms(model, SyncBatchNorm)
    buffer = GradientBuffer(model, scalars=3)
    counts, total = list(case.counts), sum(case.counts)
    source = torch.Generator().manual_seed(1)
    images = torch.randn(total, 3, 32, 32, generator=source).to(dtype)
    texts = torch.randint(1, 40000, (total, 4, 16), generator=source)
    texts[:, :, 9] = 49407  # the end token
    first = sum(counts[: distributed.rank()])
    own = slice(first, first + counts[distributed.rank()])
    # few concepts, so that most prompts are known to some other image; 0 is a caption in a prompt's place
    named = torch.randint(0, 6, (total, 3), generator=source)
    known = torch.cat([named, torch.randint(1, 8, (total, 2), generator=source)], dim=1)
    concepts = Concepts(named[own], known[own]) if case.texts == "concepts" else None
    batch = OnDevice(
        images[own], texts[own, 0], texts[own, 1:] if case.texts != "captions" else None, concepts
    )
    options = LossOptions(case.reduction, match=case.match, pieces=case.pieces, bf16=case.dtype == "bfloat16")
    generator = torch.Generator().manual_seed(5)
    losses, sound = accumulate_gradients(model, batch, counts, options, generator, buffer)
    sent = [bucket.kind for bucket in buffer._buckets if bucket.sent]
    buffer.scalars.copy_(losses)
    buffer.average()
    assert sound.all()
    return {
        "losses": buffer.scalars.clone(),
        "gradients": torch.cat([parameter.grad.flatten() for parameter in model.parameters()]),
        "sent": sent,
        "buckets": [bucket.kind for bucket in buffer._buckets],
        "statistics": {name: value for name, value in model.state_dict().items() if "running" in name},
    }


def main(out: str, cases: list[dict]) -> None:
    distributed.start()
    torch.set_num_threads(1)
    found = [take_step(Case(**{**case, "counts": tuple(case["counts"])})) for case in cases]
    if distributed.rank() == 0:
        torch.save(found, out)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
