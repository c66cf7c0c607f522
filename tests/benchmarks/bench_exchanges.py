"""What the exchanges of a step cost: how often it waits, and gradients sent beside the backward pass or after it.

``python -m tests.benchmarks.bench_exchanges [--processes 2] [--model small] [--batch 8] [--steps 6] [--timeline FILE]``

Starts that many processes of this machine by horovodrun, one thread each. Rounds with gradients sent from hooks and all
of them sent at the end take turns. ``--timeline`` keeps Horovod's own record (chrome://tracing shows it).

Writes ``train_exchanges`` to benchmarks.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from models.groupvit import GroupViT, GroupViTConfig
from models.layers.projector import replace_batch_norms
from tests.benchmarks.record import Entry, record
from tests.training.launch import environment, horovodrun
from training import distributed
from training.gradients import GradientBuffer
from training.step import LossOptions, OnDevice, accumulate_gradients
from training.sync_norm import SyncBatchNorm

BEFORE = 11
"""Waits of a step before features, statistics and gradients were put together."""


def worker(model_name: str, batch: int, steps: int, out: str) -> None:
    """One of the processes; the first writes its figures."""
    distributed.start()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = GroupViT(GroupViTConfig.preset(model_name)).train()
    replace_batch_norms(model, SyncBatchNorm)
    buffer = GradientBuffer(model, 3)
    size = model.config.image_size
    texts = torch.randint(1, 40000, (batch, 4, 16))
    texts[:, :, 9] = 49407
    rows = OnDevice(torch.randn(batch, 3, size, size), texts[:, 0], texts[:, 1:])
    waits = _count_waits()

    def step(overlapped: bool) -> float:
        started = time.perf_counter()
        buffer.zero()
        counts = [batch] * distributed.size()
        accumulate_gradients(model, rows, counts, LossOptions(), None, buffer if overlapped else None)
        buffer.average()
        return time.perf_counter() - started

    step(True), step(False)
    waits.clear()
    found: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(steps):
        for overlapped, seconds in found.items():
            seconds.append(step(overlapped))
    if distributed.rank() == 0:
        medians = [statistics.median(found[kind]) for kind in (True, False)]
        ratios = [after / beside for beside, after in zip(found[True], found[False], strict=True)]
        spread = (max(ratios) - min(ratios)) / statistics.median(ratios)
        values = {"beside": medians[0], "after": medians[1], "spread": spread}
        values |= {"waits": len(waits) / (2 * steps), "buckets": len(buffer._buckets)}
        Path(out).write_text(json.dumps(values))


def _count_waits() -> list[str]:
    """Names of the exchanges that the caller waits for, as they happen."""
    names: list[str] = []
    horovod = distributed._HOROVOD

    def counted(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def call(*arguments: object, **options: object) -> torch.Tensor:
            names.append(str(options.get("name")))
            return function(*arguments, **options)

        return call

    horovod.allreduce_, horovod.allgather = counted(horovod.allreduce_), counted(horovod.allgather)
    return names


def main() -> None:
    """Start the processes, print and record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--model", default="small")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--timeline", type=Path)
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.model, options.batch, options.steps, options.worker)
        return
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/out.json"
        launcher = horovodrun(options.processes)
        if options.timeline:
            launcher += ["--timeline-filename", str(options.timeline.absolute())]
        command = [*launcher, sys.executable, "-m", "tests.benchmarks.bench_exchanges", "--worker", out]
        command += ["--model", options.model, "--batch", str(options.batch), "--steps", str(options.steps)]
        subprocess.run(command, env=environment(), check=True, stdout=subprocess.DEVNULL)
        found = json.loads(Path(out).read_text())
    ratio = found["after"] / found["beside"]
    print(
        f"{options.processes} processes of {os.cpu_count()} cores, {options.model}, batch {options.batch}: a step takes "
        f"{found['beside']:.3f} s with {found['buckets']} buckets sent beside the backward, {found['after']:.3f} s after it "
        f"({ratio:.2f} x, spread {found['spread']:.0%})"
    )
    record(
        Entry(
            "train_exchanges",
            found["waits"],
            "waits a step",
            f"{BEFORE} before",
            BEFORE / found["waits"],
            "waits <= 4",
        )
    )


if __name__ == "__main__":
    main()
