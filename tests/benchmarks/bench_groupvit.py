"""Our GroupViT training step against Hugging Face's: forward, contrastive loss, backward.

Same size, weights, images, texts, batch, dtype and threads; the two take turns in one run, so that a
busy machine slows both. Texts come three ways:

- ``full``: every text fills the 77 tokens. No text is cut short.
- ``padded``: lengths as captions have them, padded to 77 columns as GroupViT trains; both get the same tensor.
- ``trimmed``: the same texts, cut to the longest of the batch before either model sees them.
- ``cocu``: the step that CoCu trains by: the ``padded`` captions and three prompts an image, both losses. HF's model
  encodes the four texts of an image as it always does, padded.

``--compile`` runs ours with ``train.compile``. In float32 both are bound by the machine's matrix products; the
share of the peak says how near: HF's products, forward and backward, a second over those of one of its largest alone.
Products computed: HF's floating-point operations over ours, the ratio to expect where both run alike and only padding is
left out. The limit is HF's step over what the products of our step take alone (``products.py``): the ratio of an implementation
whose every other operation costs nothing.

``python -m tests.benchmarks.bench_groupvit [--batch 16] [--rounds 3] [--threads 2] [--out FILE.json]``

Prints what the processor has: with AMX or AVX512-bf16 the figures are others than without. On a CPU it writes ``train_step``
(CoCu's step) and ``train_step_captions`` (captions alone, padded) to benchmarks.json, in the precision in which ours is faster.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import models  # noqa: F401  (before transformers, see models/torchvision_ops.py)
from models.groupvit import GroupViT, GroupViTConfig
from models.hf import convert_hf_state_dict
from models.losses import contrastive_loss, multi_label_loss
from models.tokenize import END_TOKEN, START_TOKEN
from tests.benchmarks.products import seconds_of_products
from tests.benchmarks.record import Entry, machine, record
from training.freed_memory import keep_freed_memory

Step = Callable[[], float]
PROMPTS = 3


def texts(count: int, longest: int | None, seed: int = 0) -> torch.Tensor:
    """(count, 77) tokens; lengths as of web captions (median 13, a tail to 77), or all of ``longest``."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.empty(count).log_normal_(2.55, 0.4, generator=generator).round().clamp(4, 77).long()
    rows = torch.zeros(count, 77, dtype=torch.int64)
    for row, length in zip(rows, lengths.tolist(), strict=True):
        length = longest or length
        row[:length] = torch.randint(1, START_TOKEN, (length,), generator=generator)
        row[0], row[length - 1] = START_TOKEN, END_TOKEN
    return rows


@contextlib.contextmanager
def autocast(dtype: str, device: str) -> Iterator[None]:
    with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == "bf16"):
        yield


def hf_model(device: str) -> torch.nn.Module:
    from transformers import GroupViTConfig as HfConfig
    from transformers import GroupViTModel

    torch.manual_seed(0)
    return GroupViTModel(HfConfig()).to(device).train()


def our_model(reference: torch.nn.Module, device: str) -> GroupViT:
    config = GroupViTConfig(drop_path=0.0)  # HF has no stochastic depth
    model = GroupViT(config)
    model.load_state_dict(convert_hf_state_dict(reference.state_dict(), config))
    return model.to(device).train()


def hf_step(model: torch.nn.Module, images: torch.Tensor, captions: torch.Tensor, dtype: str) -> Step:
    def step() -> float:
        model.zero_grad(set_to_none=True)
        with autocast(dtype, images.device.type):
            loss = model(input_ids=captions, pixel_values=images, return_loss=True).loss
        loss.backward()
        return float(loss.detach())

    return step


def hf_cocu_step(
    model: torch.nn.Module,
    images: torch.Tensor,
    captions: torch.Tensor,
    dtype: str,
    prompts: torch.Tensor,
) -> Step:
    """HF's encoders and projections under the losses of CoCu."""
    rows = torch.cat([captions, prompts.flatten(0, 1)])

    def step() -> float:
        model.zero_grad(set_to_none=True)
        with autocast(dtype, images.device.type):
            image = model.visual_projection(model.vision_model(pixel_values=images).pooler_output)
            found = model.text_projection(model.text_model(input_ids=rows).pooler_output)
            caption, prompt = found.split([len(captions), len(rows) - len(captions)])
            scale = model.logit_scale.exp()
            loss = contrastive_loss(image, caption, scale)
            loss = loss + multi_label_loss(image, prompt.unflatten(0, prompts.shape[:2]), scale)
        loss.backward()
        return float(loss.detach())

    return step


def our_step(
    model: GroupViT,
    images: torch.Tensor,
    captions: torch.Tensor,
    dtype: str,
    prompts: torch.Tensor | None = None,
) -> Step:
    def step() -> float:
        model.zero_grad(set_to_none=True)
        with autocast(dtype, images.device.type):
            features = model.project(model.encode(images, captions, prompts))
            scales = model.scales()
            loss = contrastive_loss(features.image, features.caption, scales.caption)
            if features.prompts is not None:
                loss = loss + multi_label_loss(features.image, features.prompts, scales.prompts)
        loss.backward()
        return float(loss.detach())

    return step


def seconds(step: Step) -> float:
    """One step's time; on a GPU the loss is read, which waits for the step."""
    start = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(one: Step, other: Step, rounds: int, repeats: int) -> tuple[float, float]:
    """Least seconds of two steps that take turns, after one of each to warm up."""
    times: tuple[list[float], list[float]] = ([], [])
    seconds(one), seconds(other)
    for _ in range(rounds):
        for step, kept in zip((one, other), times, strict=True):
            kept.extend(seconds(step) for _ in range(repeats))
    return min(times[0]), min(times[1])


def operations(step: Step) -> int:
    """Floating-point operations of a step's products."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def share_of_peak(work: int, time_taken: float, dtype: str, rows: int, device: str) -> float:
    """Products of a step a second over those of one of its largest alone, ``rows`` tokens to an MLP's hidden units."""
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    tokens, weight = (
        torch.randn(rows, 384, device=device).to(kind),
        torch.randn(384, 1536, device=device).to(kind),
    )
    least = min(seconds(lambda: float((tokens @ weight)[0, 0])) for _ in range(20))
    return work / time_taken / (2 * rows * 384 * 1536 / least)


def demo_rate(rounds: int, batch: int = 64) -> float:
    """Images/s of a training step of the ``demo`` preset with a caption and three prompts an image, fp32."""
    torch.manual_seed(0)
    config = GroupViTConfig.preset("demo")
    model = GroupViT(config).train()
    captions = texts(batch, None)[:, : config.context_length].contiguous()
    captions[:, -1].clamp_(min=END_TOKEN)
    prompts = texts(3 * batch, 9)[:, : config.context_length].unflatten(0, (batch, 3))
    step = our_step(
        model, torch.rand(batch, 3, config.image_size, config.image_size), captions, "fp32", prompts
    )
    step()
    return batch / statistics.median(seconds(step) for _ in range(max(rounds, 3)))


def entries(results: list[dict[str, Any]]) -> list[Entry]:
    """Of the step with prompts and that with captions alone: the faster of our precisions, against HF in the same."""
    found = []
    for name, kind in (("train_step", "cocu"), ("train_step_captions", "padded")):
        rows = [row for row in results if row["texts"] == kind]
        if rows:
            best = max(rows, key=lambda row: row["our_images_s"])
            other = (
                f"HF's GroupViT in {best['dtype']}, batch {best['batch']}, {best['threads']} threads, {kind}; "
                f"it computes {best['work']:.2f} times the products"
            )
            found.append(Entry(name, best["our_images_s"], "images/s", other, best["ratio"], ">= 1.3"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1, help="steps of one model before the other's turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--texts", nargs="+", default=["full", "padded", "trimmed", "cocu"])
    parser.add_argument(
        "--give-back", action="store_true", help="memory as the C library comes, which training changes"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile our blocks")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(machine())
    if options.device == "cpu" and not options.give_back:
        keep_freed_memory()

    reference = hf_model(options.device)
    ours = our_model(reference, options.device)
    if options.compile:
        ours.compile_layers()
    images = torch.randn(options.batch, 3, 224, 224, device=options.device)
    padded = texts(options.batch, None)
    longest = int(padded.argmax(dim=1).max()) + 1
    kinds = {
        "full": texts(options.batch, 77),
        "padded": padded,
        "trimmed": padded[:, :longest].contiguous(),
        "cocu": padded,
    }
    prompts = texts(PROMPTS * options.batch, None, seed=1).unflatten(0, (-1, PROMPTS))
    prompts = prompts.to(options.device)
    results = []
    for dtype in options.dtypes:
        for kind in options.texts:
            captions = kinds[kind].to(options.device)
            both = (reference, images, captions, dtype), (ours, images, captions, dtype)
            if kind == "cocu":
                steps = hf_cocu_step(*both[0], prompts), our_step(*both[1], prompts)
            else:
                steps = hf_step(*both[0]), our_step(*both[1])
            theirs, mine = compare(*steps, options.rounds, options.repeats)
            work = [operations(step) for step in steps]
            peak = share_of_peak(work[0], theirs, dtype, 260 * options.batch, options.device)
            limit = theirs / seconds_of_products(steps[1]) if options.device == "cpu" else None
            row = {
                "dtype": dtype, "texts": kind, "batch": options.batch, "threads": options.threads,
                "device": options.device, "hf_images_s": options.batch / theirs, "our_images_s": options.batch / mine,
                "ratio": theirs / mine, "hf_share_of_peak": peak, "limit": limit,
                "work": work[0] / work[1],
            }  # fmt: skip
            results.append(row)
            print(
                f"{dtype} {kind:8s} hf {row['hf_images_s']:8.2f} images/s   ours {row['our_images_s']:8.2f} images/s"
                f"   ratio {row['ratio']:.2f}   (hf at {peak:.0%} of the peak of products)"
                + f"   products computed {row['work']:.2f}"
                + (f"   limit {limit:.2f}" if limit else ""),
                flush=True,
            )
    report: dict[str, object] = {"steps": results}
    if options.device == "cpu":
        report["demo_images_s"] = demo_rate(options.rounds)
        print(f"demo preset, 112 px, caption + 3 prompts, fp32: {report['demo_images_s']:.1f} images/s")
        record(*entries(results))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
