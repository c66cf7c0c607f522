"""The reader and the texts against what an H100 trains: 4,000 rows a second.

``python -m tests.benchmarks.bench_reader [--rows 8192] [--batch 64] [--model paper] [--workers 1] [--steps 3]``

``read``: row groups through training.feed.readers into shuffled batches (both readers). ``texts``: captions and prompts
of such batches as tokens, in one thread; of a table with the column of token ids and of one without (as it was before
there was one: every caption and prompt of its own through the tokenizer). ``ready``: read, decoded, augmented by the
recipe and tokenised. ``step``: forward, backward and update of the model on ready batches. Captions are all different, of
the benchmarks' class names and common words; archives are drawn from 10,000 concepts.

Writes ``train_text`` and ``train_reader`` to benchmarks.json.
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
from curation.text.vocabulary import benchmark_classes
from models.token_rows import pack_ids
from models.tokenize import _ids, tokenize
from storage import tables
from storage.units import Part, UnitRecord
from tests.benchmarks.bench_extraction import captions, vocabulary
from tests.benchmarks.record import Entry, alternate, record
from tests.training.synthetic import rows_table, write_training_set
from training.feed.batches import BatchMaker, BatchOptions
from training.feed.plan import EpochPlan
from training.feed.stream import rank_tables
from training.feed.texts import Draws, caption_tokens, draw_prompts, prompt_texts, prompt_words
from training.feed.training_set import TrainingSet, open_training_set
from training.gradients import GradientBuffer
from training.recipe import build_optimiser
from training.step import LossOptions, accumulate_gradients
from training.transfer import to_device


def photo_like(seed: int) -> bytes:
    """A 256 x 341 JPEG of about 20 KB, as ingest stores photos."""
    coarse = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((341, 256), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


NEEDED = 4000
"""Rows a second of one H100 at the paper's size (issue: 2,500 to 4,000)."""
_ARCHIVE = 16


def varied_rows(first: int, count: int, texts: list[str], words: list[str]) -> pa.Table:
    """Rows as exported, each caption another one, each archive 16 other concepts."""
    source = np.random.default_rng(first)
    table = rows_table(first, count, length=_ARCHIVE)
    chosen = texts[first : first + count]
    archives = [[words[n] for n in source.choice(len(words), _ARCHIVE, False)] for _ in range(count)]
    scores = -np.sort(-source.normal(1.5, 0.3, (count, _ARCHIVE)).astype(np.float32), axis=1)
    columns: dict[str, list[object] | pa.Array] = {
        "caption": chosen,
        "caption_tokens": pack_ids(chosen),
        "caption_nouns": ["\n".join(text.split()[:4]) for text in chosen],
        "archive_concepts": archives,
        "archive_scores": scores.tolist(),
        "archive_clusters": source.integers(0, 6, (count, _ARCHIVE)).tolist(),
    }
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        field = table.schema.field(name)
        table = table.set_column(place, field, pa.array(values, field.type))
    return table


def make_table(workspace: Path, rows: int) -> TrainingSet:
    """A training set of ``rows`` rows in files of 2,500, row groups of 256."""
    write_training_set(workspace, [1], 1)
    folder = str(workspace / "training_set")
    pictures = [photo_like(seed) for seed in range(64)]
    names = sorted(benchmark_classes())
    texts, words = captions(rows, names), vocabulary(10_000, names)
    records = []
    for first in range(0, rows, 2500):
        count = min(2500, rows - first)
        table = varied_rows(first, count, texts, words)
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


def text_seconds(tables_of_steps: list[pa.Table], draws: Draws) -> tuple[float, float, float]:
    """Processor seconds for the texts of these batches, by gathered ids and each text tokenised; the spread."""
    epochs = iter(range(1_000_000))

    def gathered() -> None:
        for table in tables_of_steps:
            caption_tokens(table, 77)
            draw_prompts(table, next(epochs), draws, 77)

    def each() -> None:
        _ids.cache_clear()
        for table in tables_of_steps:
            epoch = next(epochs)
            texts = prompt_texts(table, prompt_words(table, epoch, draws), epoch, draws)
            tokenize(table.column("caption").to_pylist())
            tokenize([text for row in texts for text in row])

    return alternate(gathered, each, rounds=3)


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
        accumulate_gradients(model, to_device(batch, device), [len(batch.keys)], options, generator)
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
        some = [table for table, _ in zip(rank_tables(data, plan, 0, "arrow"), range(64), strict=False)]
        spreads = {}
        for negatives in ("all", "archive"):
            ours, before, spread = text_seconds(some, Draws(negatives=negatives))
            rows = sum(table.num_rows for table in some)
            found[f"texts, {negatives}"], spreads[negatives] = rows / ours, spread
            found[f"texts one by one, {negatives}"] = rows / before
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
        print(
            f"{name:28} {value:10,.0f} rows/s   {value / NEEDED:8.2f} x {NEEDED:,}   {value / found['step']:8.1f} x the step"
        )
    text, read = found["texts, archive"], min(found["read, petastorm"], found["read, arrow"])
    record(
        Entry(
            "train_text", text, "rows/s a core", f"what an H100 trains, {NEEDED:,} rows/s", text / NEEDED, ">= 5",
            spreads["archive"],
        ),
        Entry("train_reader", read, "rows/s", f"what an H100 trains, {NEEDED:,} rows/s", read / NEEDED, ">= 1"),
    )  # fmt: skip
    if arguments.out:
        arguments.out.write_text(
            json.dumps({**vars(arguments), "out": None, "device": str(device), "rows/s": found}, indent=1)
        )


if __name__ == "__main__":
    main()
