"""One training step of this process' share of a fixed batch; rank 0 stores losses, gradients and statistics.

Run by test_step.py under horovodrun with several processes, and alone for the whole batch.
"""

from __future__ import annotations

import json
import sys

import torch

from models.groupvit import GroupViT, GroupViTConfig
from models.layers.projector import replace_batch_norms
from models.losses import Concepts
from training import distributed
from training.recipe import GradientBuffer
from training.step import LossOptions, OnDevice, accumulate_gradients
from training.sync_norm import SyncBatchNorm


def main(
    out: str, counts: list[int], pieces: int, reduction: str, match: str, texts_are: str, dtype: torch.dtype
) -> None:
    distributed.start()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = GroupViT(GroupViTConfig.preset("tiny", gumbel_noise=False, drop_path=0.0)).train().to(dtype)
    if distributed.launched():
        replace_batch_norms(model, SyncBatchNorm)
    buffer = GradientBuffer(model, scalars=3)
    total = sum(counts)
    source = torch.Generator().manual_seed(1)
    images = torch.randn(total, 3, 32, 32, generator=source).to(dtype)
    texts = torch.randint(1, 40000, (total, 4, 16), generator=source)
    texts[:, :, 9] = 49407  # the end token
    first = sum(counts[: distributed.rank()])
    own = slice(first, first + counts[distributed.rank()])
    # few concepts, so that most prompts are known to some other image; 0 is a caption in a prompt's place
    named = torch.randint(0, 6, (total, 3), generator=source)
    known = torch.cat([named, torch.randint(1, 8, (total, 2), generator=source)], dim=1)
    concepts = Concepts(named[own], known[own]) if texts_are == "concepts" else None
    batch = OnDevice(
        images[own], texts[own, 0], texts[own, 1:] if texts_are != "captions" else None, concepts
    )
    options = LossOptions(reduction, match=match, pieces=pieces)
    generator = torch.Generator().manual_seed(5)
    losses, sound = accumulate_gradients(model, batch, counts, options, generator)
    buffer.scalars.copy_(losses)
    buffer.average()
    assert sound.all()
    if distributed.rank() == 0:
        statistics = {name: value for name, value in model.state_dict().items() if "running" in name}
        torch.save(
            {
                "losses": buffer.scalars.clone(),
                "gradients": buffer.gradients.clone(),
                "statistics": statistics,
            },
            out,
        )


if __name__ == "__main__":
    main(
        sys.argv[1],
        json.loads(sys.argv[2]),
        int(sys.argv[3]),
        sys.argv[4],
        sys.argv[5],
        sys.argv[6],
        getattr(torch, sys.argv[7]),
    )
