"""scripts/train.sh: which command it becomes, seen by programs of the same names on the path that say their arguments."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.sh"


def launch(folder: Path, cards: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a machine with so many GPUs."""
    listing = "".join(f"GPU {number}: NVIDIA H100\\n" for number in range(cards))
    for name, text in {
        "nvidia-smi": f"printf '{listing}'",
        "horovodrun": 'echo horovodrun "$@"',
        "python": 'echo python "$@"',
    }.items():
        program = folder / name
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(0o755)
    inherited = {k: v for k, v in os.environ.items() if k not in ("NP", "HOSTS", "CUDA_VISIBLE_DEVICES")}
    values = {**inherited, **environment, "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run([SCRIPT, "--config", "F"], env=values, capture_output=True, text=True)


ONE = "python -m training.train --config F"


@pytest.mark.parametrize(
    ("cards", "environment", "command"),
    [
        (0, {}, ONE),
        (1, {}, ONE),
        (4, {}, f"horovodrun -np 4 -H localhost:4 {ONE}"),
        (4, {"NP": "1"}, ONE),
        (0, {"NP": "2"}, f"horovodrun -np 2 -H localhost:2 {ONE}"),
        (8, {"CUDA_VISIBLE_DEVICES": "2,5"}, f"horovodrun -np 2 -H localhost:2 {ONE}"),
        (8, {"CUDA_VISIBLE_DEVICES": ""}, ONE),
        (8, {"CUDA_VISIBLE_DEVICES": "3,-1,4"}, ONE),
        (1, {"HOSTS": "gpu1:4,gpu2:4"}, f"horovodrun -np 8 -H gpu1:4,gpu2:4 {ONE}"),
        (0, {"HOSTS": "gpu1,gpu2:3"}, f"horovodrun -np 4 -H gpu1,gpu2:3 {ONE}"),
        (0, {"HOSTS": "gpu1:4,gpu2:4", "NP": "6"}, f"horovodrun -np 6 -H gpu1:4,gpu2:4 {ONE}"),
    ],
)
def test_as_many_processes_as_there_are_cards_or_slots(tmp_path, cards, environment, command):
    done = launch(tmp_path, cards, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == command


@pytest.mark.parametrize(
    ("cards", "environment", "says"),
    [
        (0, {"NP": "two"}, "NP=two is no number of processes"),
        (0, {"NP": "0"}, "NP=0 is no number of processes"),
        (2, {"NP": "4"}, "NP=4 is more than the 2 GPUs here"),
        (8, {"NP": "3", "CUDA_VISIBLE_DEVICES": "0,1"}, "NP=3 is more than the 2 GPUs here"),
        (0, {"NP": "9", "HOSTS": "a:4,b:4"}, "NP=9 is more than the 8 slots of HOSTS=a:4,b:4"),
        (0, {"HOSTS": "a:4,b:x"}, "HOSTS=a:4,b:x: 'b:x' must be host:slots"),
        (0, {"HOSTS": ","}, "names no host"),
    ],
)
def test_numbers_that_cannot_be_are_one_line(tmp_path, cards, environment, says):
    done = launch(tmp_path, cards, **environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
