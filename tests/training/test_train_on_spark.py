"""Training inside a real Spark application by horovod.spark."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.schema import CocuConfig
from tests.harness.installed import needs
from tests.training.launch import PROGRAMS, ROOT, TINY, run
from tests.training.synthetic import write_training_set
from training.train_on_spark import run_on_spark


def submit(workspace: Path, *overrides: str) -> list[str]:
    script = str(ROOT / "training" / "train_on_spark.py")
    options = [
        "--master",
        "local[2]",
        "--conf",
        "spark.ui.enabled=false",
        "--conf",
        f"spark.pyspark.python={sys.executable}",
    ]
    return [str(PROGRAMS / "spark-submit"), *options, script, f"workspace={workspace}", *TINY, *overrides]


@needs("horovod")
@pytest.mark.slow
def test_two_executors_train(tmp_path: Path) -> None:
    write_training_set(tmp_path, [40, 40], group_rows=16)
    done = run(submit(tmp_path, "train.epochs=2"))
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    summary = json.loads((tmp_path / "training" / "summary.json").read_text())
    assert (summary["processes"], summary["rows"]) == (2, 160)
    assert "train: 2 epochs" in done.stdout


@needs("horovod")
@pytest.mark.slow
def test_what_fails_in_an_executor_is_one_line(tmp_path: Path) -> None:
    write_training_set(tmp_path, [20], group_rows=20)
    done = run(submit(tmp_path))
    assert done.returncode == 2
    # spark-submit joins both streams of a Python application
    lines = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stdout + done.stderr[-4000:]
    assert "1 row groups for 2 processes" in lines[0]


def test_without_horovod_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "horovod"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "horovod", None)  # Python's own way of saying: not to be had
    with pytest.raises(UserError, match=r"needs Horovod.*extra 'horovod'.*python -m training\.train"):
        run_on_spark(CocuConfig())
