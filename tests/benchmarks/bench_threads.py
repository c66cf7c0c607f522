"""How a training step on a CPU fares beside other work: by threads, and by how OpenMP's threads wait for each other.

``python -m tests.benchmarks.bench_threads [--model tiny] [--batch 32] [--seconds 6] [--busy 2]``

Each variant is a process of its own (OpenMP reads its environment when it is loaded), alone and beside ``--busy`` processes
that do nothing but count. ``active`` is what OpenMP does where nothing is set: threads spin before they sleep.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from tests.benchmarks.record import machine

_WAITING: dict[str, dict[str, str]] = {
    "active": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spin 1,000": {"GOMP_SPINCOUNT": "1000"},
}
_STEP = """
import sys, time, torch
from models.groupvit import GroupViT, GroupViTConfig
from configs.training import TrainConfig
from training.gradients import GradientBuffer
from training.recipe import build_optimiser
from training.step import LossOptions, OnDevice, accumulate_gradients
name, batch, threads, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
torch.set_num_threads(threads)
torch.manual_seed(0)
model = GroupViT(GroupViTConfig.preset(name)).train()
size = model.config.image_size
optimiser, buffer = build_optimiser(model, TrainConfig()), GradientBuffer(model, 3)
texts = torch.randint(1, 40000, (batch, 4, 16)); texts[:, :, 9] = 49407
rows = OnDevice(torch.randn(batch, 3, size, size), texts[:, 0], texts[:, 1:])
def step():
    buffer.zero()
    accumulate_gradients(model, rows, [batch], LossOptions(), None, buffer)
    buffer.clip(buffer.gradients.norm(), 5.0)
    optimiser.step()
step(); step()
start, steps = time.perf_counter(), 0
while time.perf_counter() - start < seconds:
    step(); steps += 1
print(steps * batch / (time.perf_counter() - start))
"""


def rate(model: str, batch: int, threads: int, seconds: float, waiting: dict[str, str]) -> float:
    """Images a second of the step in a new process."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-c", _STEP, model, str(batch), str(threads), str(seconds)]
    done = subprocess.run(command, env={**clean, **waiting}, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--busy", type=int, default=2)
    arguments = parser.parse_args()
    print(f"{machine()}; {arguments.model}, batch {arguments.batch}; images/s")
    for busy in (0, arguments.busy):
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        try:
            time.sleep(0.5)
            for threads in (1, 2):
                found = {
                    name: rate(arguments.model, arguments.batch, threads, arguments.seconds, waiting)
                    for name, waiting in _WAITING.items()
                }
                shown = "  ".join(f"{name} {value:8.1f}" for name, value in found.items())
                print(f"{busy} busy processes, {threads} threads:  {shown}", flush=True)
        finally:
            for process in others:
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()
