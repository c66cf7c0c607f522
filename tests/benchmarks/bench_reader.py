"""The reader against the training step: rows/s read, rows/s made ready, images/s trained, in one run.

``python -m tests.benchmarks.bench_reader [--rows 4096] [--batch 64] [--model paper] [--workers 1] [--steps 3]``

``read``: row groups through training.feed.readers into shuffled batches (both readers). ``ready``: also decoded,
augmented by the recipe and tokenised. ``step``: forward, backward and update of the model on ready batches.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from configs.schema import CocuConfig
from storage import tables
from storage.units import Part, UnitRecord
from tests.training.synthetic import rows_table, write_training_set
from training.feed.batches import BatchMaker, BatchOptions
from training.feed.plan import EpochPlan
from training.feed.stream import rank_tables
from training.feed.training_set import TrainingSet, open_training_set
from training.loop import _to_device
from training.recipe import GradientBuffer, build_optimiser
from training.step import LossOptions, accumulate_gradients


def photo_like(seed: int) -> bytes:
    """A 256 x 341 JPEG of about 20 KB, as ingest stores photos."""
    coarse = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((341, 256), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def make_table(workspace: Path, rows: int) -> TrainingSet:
    """A training set of ``rows`` rows in files of 2,500, row groups of 256."""
    write_training_set(workspace, [1], 1)
    folder = str(workspace / "training_set")
    pictures = [photo_like(seed) for seed in range(64)]
    records = []
    for first in range(0, rows, 2500):
        count = min(2500, rows - first)
        table = rows_table(first, count)
        images = pa.array([pictures[(first + place) % 64] for place in range(count)], pa.binary())
        table = table.set_column(1, "image", images)
        file = tables.part_path("abcdef123456", f"web/big{first:07d}", 0)
        tables.write_part(folder, file, table, table.schema, row_group_rows=256)
        name = f"web/big{first:07d}"
        records.append(UnitRecord(name, (Part(name, file, count),), count))
    tables.write_manifest(
        tables.Manifest(
            "training_set",
            str(workspace),
            "export_training",
            "abcdef123456",
            {},
            {},
            {},
            "0",
            "complete",
            records,
        )
    )
    return open_training_set(str(workspace))


def rate(items: Iterable[object], rows: list[int]) -> float:
    """Rows a second after the first batch has come."""
    started, seen = 0.0, 0
    for place, _ in enumerate(items):
        if place == 0:
            started = time.perf_counter()
        else:
            seen += rows[place]
    return seen / max(time.perf_counter() - started, 1e-9)


def step_rate(model_name: str, ready: list[object], device: torch.device, bf16: bool) -> float:
    """Images a second of the training step, the best of the given batches."""
    from models.groupvit import GroupViT, GroupViTConfig

    model = GroupViT(GroupViTConfig.preset(model_name)).to(device).train()
    optimiser, buffer = build_optimiser(model, CocuConfig().train), GradientBuffer(model, 3)
    best = 0.0
    for batch in ready:
        started = time.perf_counter()
        buffer.zero()
        options = LossOptions(bf16=bf16)
        generator = torch.Generator(device).manual_seed(0)
        accumulate_gradients(model, _to_device(batch, device), [len(batch.keys)], options, generator)
        buffer.clip(buffer.gradients.norm(), 5.0)
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, len(batch.keys) / (time.perf_counter() - started))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--model", default="paper")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    from models.groupvit import GroupViTConfig

    sizes = GroupViTConfig.preset(arguments.model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = make_table(Path(folder), arguments.rows)
        plan = EpochPlan(data.group_rows, 0, 0, 1, arguments.batch, 16)
        counts = plan.counts[:, 0].tolist()
        for reader in ("petastorm", "arrow"):
            found[f"read, {reader}"] = rate(rank_tables(data, plan, 0, reader), counts)
        options = BatchOptions(
            sizes.image_size,
            context_length=sizes.context_length,
            workers=arguments.workers,
            pin=device.type == "cuda",
        )
        with BatchMaker(options) as maker:
            found["ready, recipe"] = rate(maker.batches(rank_tables(data, plan, 0, "petastorm"), 0), counts)
            tables_of_steps = (
                table
                for table, _ in zip(
                    rank_tables(data, plan, 0, "petastorm"), range(arguments.steps), strict=False
                )
            )
            ready = list(maker.batches(tables_of_steps, 0))
        found["step"] = step_rate(arguments.model, ready, device, device.type == "cuda")
    for name, value in found.items():
        print(f"{name:18} {value:10,.0f} rows/s   {value / found['step']:8.1f} x the step")
    if arguments.out:
        arguments.out.write_text(
            json.dumps({**vars(arguments), "out": None, "device": str(device), "rows/s": found}, indent=1)
        )


if __name__ == "__main__":
    main()
