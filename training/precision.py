"""float32 or bfloat16, where ``train.precision`` is ``auto``: on a CPU whichever is faster there, measured.

How much bfloat16 gains depends on the processor (tiles, vector instructions, or neither: then it is slower), on the
model's width and on the threads; so a few passes are timed before the first step. What was found stands in the
progress: every rank, and a run that goes on, takes the same.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from models.groupvit import GroupViT
from models.tokenize import END_TOKEN
from training import distributed
from training.gradients import GradientBuffer
from training.step import LossOptions, OnDevice, accumulate_gradients

__all__ = ["choose_precision"]

_ROUNDS = 3
_ROWS = 16
_TOKENS = 16
_GAIN = 1.1
"""bfloat16 has to be so many times as fast: it is coarser."""


def choose_precision(
    wanted: str, model: GroupViT, buffer: GradientBuffer, options: LossOptions, rows: int, prompts: int
) -> str:
    """``fp32`` or ``bf16``, the same on every rank, all of which have to call this.

    Args:
        wanted: ``train.precision``.
        buffer: of the model's gradients; zeros afterwards.
        options: of the step that will be trained.
        rows: of a process in a step. prompts: an image's.
    """
    if wanted != "auto":
        return wanted
    device = next(model.parameters()).device
    if device.type == "cuda":
        return "bf16"
    # torch computes bfloat16 without either of these by way of float32
    knows = torch.cpu.get_capabilities()
    if not (knows.get("amx_bf16", False) or knows.get("avx512_bf16", False)):
        return distributed.broadcast("fp32")
    seconds = _measured(model, buffer, options, min(rows, _ROWS), prompts)
    chosen = "bf16" if seconds["fp32"] > _GAIN * seconds["bf16"] else "fp32"
    if distributed.rank() == 0:
        print(
            f"precision: {chosen} (a pass of {min(rows, _ROWS)} images takes {seconds['fp32']:.3f} s in fp32, "
            f"{seconds['bf16']:.3f} s in bf16)",
            flush=True,
        )
    return distributed.broadcast(chosen)


def _measured(
    model: GroupViT, buffer: GradientBuffer, options: LossOptions, rows: int, prompts: int
) -> dict[str, float]:
    """Least seconds of a forward and backward pass, by turns, after one of each.

    In evaluation mode: no noise is drawn, no statistics change and no exchange is asked for.
    """
    size, length = model.config.image_size, min(_TOKENS, model.config.context_length)
    texts = torch.full((rows, 1 + prompts, length), 1, dtype=torch.int64)
    texts[:, :, -1] = END_TOKEN
    images = torch.zeros(rows, 3, size, size)
    batch = OnDevice(images, texts[:, 0].contiguous(), texts[:, 1:].contiguous() if prompts else None)
    seconds: dict[str, list[float]] = {"fp32": [], "bf16": []}
    was_training = model.training
    model.eval()
    try:
        for turn in range(1 + _ROUNDS):
            for name, kept in seconds.items():
                started = time.perf_counter()
                accumulate_gradients(
                    model, batch, [rows], replace(options, bf16=name == "bf16", pieces=1), None
                )
                if turn:
                    kept.append(time.perf_counter() - started)
    finally:
        model.train(was_training)
        buffer.zero()
    return {name: min(kept) for name, kept in seconds.items()}
