"""Images a second of evaluation: our segmentor against window-by-window inference as mmsegmentation does it.

Both use the same model, images, texts and threads and take turns. The reference is mmseg's own
``EncoderDecoder.slide_inference`` with one window a forward pass and ``postprocess_result`` (scores of all classes
at the size of the photo); ``alone`` is our code with ``max_windows=1``, which shows what batching alone gives; ``bf16`` are
both under autocast to bfloat16, ours with weights that were rounded before; ``model`` is the image encoder alone on the same windows in the same batches, which nobody can
leave out: the limit of the ratio. Entries are of processor time on a CPU, which a busy machine disturbs less.

``python -m tests.benchmarks.bench_evaluation [--benchmarks voc ade20k] [--images 2] [--preset paper] [--out FILE]``
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import evaluation.benchmarks.mmseg_import  # noqa: F401  (before mmseg)

# isort: split
import torch
from mmseg.models import BaseSegmentor, EncoderDecoder
from mmseg.structures import SegDataSample

from evaluation.benchmarks.catalogue import load_benchmark, scaled
from evaluation.protocol import (
    Protocol,
    apply_background,
    best_classes,
    encode_windows,
    slide_images,
    window_places,
    windows_at_once,
)
from models.groupvit import GroupViT, GroupViTConfig, with_rounded_weights
from tests.benchmarks.record import Entry, record

CLASSES = {"voc": 20, "context": 59, "coco_object": 80, "imagenet_s_50": 50, "imagenet_s_300": 300, "cityscapes": 19,
           "ade20k": 150, "coco_stuff": 171, "voc20": 20, "context59": 59}  # fmt: skip
LONG_OVER_SHORT = 4 / 3
Step = Callable[[list[torch.Tensor]], list[torch.Tensor]]


def photos(count: int, protocol: Protocol, device: str) -> list[torch.Tensor]:
    """Normalised images as the loader gives them, all of the usual 4 : 3."""
    generator = torch.Generator().manual_seed(0)
    size = (protocol.short_side, round(protocol.short_side * LONG_OVER_SHORT))
    return [torch.randn(3, *size, generator=generator).to(device) for _ in range(count)]


def by_window(
    model: GroupViT,
    texts: torch.Tensor,
    protocol: Protocol,
    original: tuple[int, int],
    dtype: torch.dtype | None = None,
) -> Step:
    """mmseg's sliding inference and post-processing, one window at a time."""
    threshold = protocol.background_threshold

    def window(crop: torch.Tensor, _: Any) -> torch.Tensor:
        result = encode_windows(model, crop, texts, protocol.top, dtype)
        one_hot = torch.nn.functional.one_hot(result.segments, result.scores.shape[1]).to(result.scores)
        scores = torch.einsum("bhwg,bgc->bchw", one_hot, result.scores)
        if threshold is None:
            return scores
        return apply_background(scores, result.scores.amax(dim=(1, 2)), threshold)

    sides = SimpleNamespace(stride=(protocol.stride,) * 2, crop_size=(protocol.window,) * 2)
    channels = len(texts) + (threshold is not None)
    shell = SimpleNamespace(test_cfg=sides, out_channels=channels, encode_decode=window, align_corners=False)

    def step(images: list[torch.Tensor]) -> list[torch.Tensor]:
        labels = []
        for image in images:
            logits = EncoderDecoder.slide_inference(shell, image[None], [{}])
            sample = SegDataSample(metainfo={"ori_shape": original})
            found = BaseSegmentor.postprocess_result(shell, logits, [sample])[0]
            labels.append(found.pred_sem_seg.data[0])
        return labels

    return step


def ours(
    model: GroupViT,
    texts: torch.Tensor,
    protocol: Protocol,
    original: tuple[int, int],
    max_windows: int | None,
    dtype: torch.dtype | None = None,
) -> Step:
    """What the segmentor does."""

    def step(images: list[torch.Tensor]) -> list[torch.Tensor]:
        found = slide_images(model, images, texts, protocol, max_windows, dtype)
        return [best_classes(scores, original) for scores in found]

    return step


def encoder(
    model: GroupViT, protocol: Protocol, max_windows: int | None, dtype: torch.dtype | None = None
) -> Step:
    """The image encoder on all windows, and nothing else; no labels."""

    def step(images: list[torch.Tensor]) -> list[torch.Tensor]:
        windows = []
        for image in images:
            (height, width), corners = window_places(*image.shape[-2:], protocol.window, protocol.stride)
            windows += [image[:, row : row + height, column : column + width] for row, column in corners]
        at_once = max_windows or windows_at_once((height, width), image.device)
        for start in range(0, len(windows), at_once):
            with torch.autocast(image.device.type, dtype=dtype, enabled=dtype is not None):
                model.encode_image(torch.stack(windows[start : start + at_once]), with_maps=True)
        return []

    return step


def seconds(step: Step, images: list[torch.Tensor], device: str) -> tuple[float, float, list[torch.Tensor]]:
    """Seconds by the clock, and of CPU time, which a busy machine disturbs less."""
    start, used = time.perf_counter(), time.process_time()
    labels = step(images)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - used, labels


@torch.no_grad()
def compare(name: str, model: GroupViT, options: argparse.Namespace) -> dict[str, Any]:
    """Least seconds of the seven ways, which take turns."""
    protocol = scaled(load_benchmark(name).protocol, model.config.image_size)
    texts = torch.nn.functional.normalize(torch.randn(CLASSES[name], model.config.embed_dim), dim=-1)
    texts = texts.to(options.device)
    images = photos(options.images, protocol, options.device)
    original = tuple(round(side * options.original) for side in images[0].shape[1:])
    rounded = with_rounded_weights(model, torch.bfloat16)
    steps = {
        "by_window": by_window(model, texts, protocol, original),
        "alone": ours(model, texts, protocol, original, 1),
        "ours": ours(model, texts, protocol, original, options.max_windows),
        "by_window_bf16": by_window(model, texts, protocol, original, torch.bfloat16),
        "bf16": ours(rounded, texts, protocol, original, options.max_windows, torch.bfloat16),
        "model": encoder(model, protocol, options.max_windows),
        "model_bf16": encoder(rounded, protocol, options.max_windows, torch.bfloat16),
    }
    best, cpu = (dict.fromkeys(steps, float("inf")) for _ in range(2))
    found: dict[str, list[torch.Tensor]] = {}
    for _ in range(options.rounds):
        for kind, step in steps.items():
            took, used, found[kind] = seconds(step, images, options.device)
            best[kind], cpu[kind] = min(best[kind], took), min(cpu[kind], used)
    pairs = zip(found["ours"], found["by_window"], strict=True)
    same = torch.stack([(one == other).float().mean() for one, other in pairs])
    rates = {kind: len(images) / value for kind, value in best.items()}
    spent = cpu if options.device == "cpu" else best
    measured = {
        precision: {
            "images_s": len(images) / spent[way],
            "ratio": spent[window] / spent[way],
            "limit": spent[window] / spent[alone],
        }
        for precision, way, window, alone in (
            ("fp32", "ours", "by_window", "model"), ("bf16", "bf16", "by_window_bf16", "model_bf16")
        )
    }  # fmt: skip
    return {"benchmark": name, "images_s": rates, "ratio": rates["ours"] / rates["by_window"], "bf16_ratio": rates["bf16"] / rates["by_window_bf16"],
            "cpu_seconds": cpu, "batching_alone": rates["ours"] / rates["alone"], "same_labels": float(same.mean()), "measured": measured}  # fmt: skip


def entries(results: list[dict[str, Any]], device: str) -> list[Entry]:
    """The least ratio of each precision, with the limit that the encoder alone sets there, and of both."""
    found = []
    for precision in ("fp32", "bf16"):
        least = min(results, key=lambda result: result["measured"][precision]["ratio"])
        figures = least["measured"][precision]
        what = (
            f"window by window in {precision} on {device}; {least['benchmark']}, the least of {len(results)}; "
            f"{figures['limit']:.2f} if all but the encoder were free"
        )
        unit = "images/s of processor" if device == "cpu" else "images/s"
        name = f"evaluation_windows_{precision}"
        found.append(Entry(name, figures["images_s"], unit, what, figures["ratio"], ">= 2"))
    return [*found, replace(min(found, key=lambda entry: entry.ratio or 0.0), name="evaluation_windows")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--benchmarks", nargs="+", default=["voc", "cityscapes", "ade20k", "coco_stuff"], choices=CLASSES
    )
    parser.add_argument("--images", type=int, default=2, help="images of a step; their windows share batches")
    parser.add_argument(
        "--original", type=float, default=1.0, help="side of the photo over that of the resized image"
    )
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--max-windows", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = GroupViT(GroupViTConfig.preset(options.preset)).eval().to(options.device)
    results = []
    for name in options.benchmarks:
        results.append(compare(name, model, options))
        rates, measured = results[-1]["images_s"], results[-1]["measured"]
        shown = "   ".join(
            f"{precision} {figures['ratio']:5.2f} (limit {figures['limit']:5.2f})"
            for precision, figures in measured.items()
        )
        print(
            f"{name:14s} window by window {rates['by_window']:7.2f} images/s   ours {rates['ours']:7.2f}   "
            f"ratio {results[-1]['ratio']:5.2f}   (of batches alone {results[-1]['batching_alone']:4.2f}; "
            f"same labels {100 * results[-1]['same_labels']:.3f} %)   bf16 window by window {rates['by_window_bf16']:7.2f}   "
            f"ours {rates['bf16']:7.2f}   ratio {results[-1]['bf16_ratio']:5.2f}\n{'':14s} as recorded: {shown}",
            flush=True,
        )
    record(*entries(results, options.device))
    if options.out:
        options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
