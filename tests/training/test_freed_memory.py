"""Page faults of tensors that come and go, counted by the kernel, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.training.launch import ROOT, environment, train_command
from tests.training.synthetic import write_training_set

COUNT = """
import resource, torch
def work():
    large = [torch.ones(16 << 20) for _ in range(3)]  # 64 MB each: mapped for itself as glibc comes
    return sum(float(each[-1]) for each in large)
for _ in range(6):  # until all that is needed is there
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    work()
print("faults", resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
TRAIN = "import sys; from training.train import main; main(sys.argv[1:])"
PAGES = 4 * 3 * (64 << 20) // os.sysconf("SC_PAGE_SIZE")


def faults(before: str, *arguments: str, **told: str) -> int:
    """Of four times three tensors of 64 MB, in a process that did ``before`` first."""
    clean = {
        name: value for name, value in environment().items() if not name.startswith(("MALLOC_", "GLIBC_"))
    }
    command = [sys.executable, "-c", before + COUNT, *arguments]
    done = subprocess.run(
        command, env={**clean, **told}, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return int(done.stdout.split("faults")[1])


def test_a_training_uses_what_was_freed_again_without_a_fault(tmp_path: Path) -> None:
    write_training_set(tmp_path, [16], 8)
    arguments = train_command(tmp_path, "train.epochs=1", "train.device=cpu")[3:]
    assert faults("") > 0.9 * PAGES
    assert faults(TRAIN, *arguments) < 0.01 * PAGES


def test_what_the_user_has_set_stays() -> None:
    before = "from training.freed_memory import keep_freed_memory; assert keep_freed_memory() is {}"
    assert faults(before.format(True)) < 0.01 * PAGES
    assert faults(before.format(False), MALLOC_MMAP_THRESHOLD_="1000000") > 0.9 * PAGES
