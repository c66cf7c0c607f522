"""`make demo`: scenes, curation, training, evaluation and report, each by its real entry.

Every step is the command that a user would type; it is printed before it runs. The summary of the whole
lands in `workspace/demo/summary.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from configs.errors import UserError, run_entry
from configs.loading import load_config
from configs.schema import CocuConfig
from demo.gap import measure_gap
from storage import tables

__all__ = ["main"]

CONFIG = "configs/demo.yaml"
_BACKGROUND_THRESHOLD = "0.1"


def main(argv: list[str]) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=CONFIG, help="another configuration file")
    parser.add_argument("--pairs", type=int, default=2400, help="generated image-caption pairs")
    parser.add_argument(
        "--eval-scenes", type=int, default=120, help="generated scenes with masks for evaluation"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other scenes")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="configuration overrides, passed to every step"
    )
    arguments = parser.parse_args(argv)
    config = load_config(arguments.config, arguments.overrides)
    source = Path(config.report.truth).parent
    common = ["--config", arguments.config, *arguments.overrides]
    started = time.monotonic()
    seconds: dict[str, float] = {}

    def step(name: str, command: list[str]) -> None:
        begun = time.monotonic()
        print(f"\n$ {shlex.join(command)}", flush=True)
        code = subprocess.run([*_resolved(command)], env=_environment()).returncode
        if code:
            raise UserError(f"the step '{name}' ended with exit code {code}; its message is above")
        seconds[name] = round(time.monotonic() - begun, 1)

    scenes = [
        "--pairs",
        str(arguments.pairs),
        "--eval-scenes",
        str(arguments.eval_scenes),
        "--seed",
        str(arguments.seed),
    ]
    step("generate", ["python", "-m", "demo.generate", "--out", str(source), *scenes])
    step("curate", ["spark-submit", "spark_jobs/pipeline.py", *common])
    summary = _curation_summary(config, source)
    summary["seconds"]["generate"] = seconds["generate"]
    summary["seconds"]["curation, with Spark's start"] = seconds["curate"]
    _store(config, summary)
    step("train", ["python", "-m", "training.train", *common])
    checkpoint = Path(config.train.output or Path(config.workspace) / "training") / "last.pt"
    results = Path(config.workspace) / "evaluation"
    step("evaluate", _evaluate_command(checkpoint, source, results))
    summary["training"] = _training_summary(checkpoint.parent)
    summary["evaluation"] = _evaluation_summary(results)
    summary["seconds"].update({name: seconds[name] for name in ("train", "evaluate")})
    _store(config, summary)
    step("report", ["python", "-m", "spark_jobs.report", *common])
    _show(summary, config, time.monotonic() - started)
    return 0


def _evaluate_command(checkpoint: Path, source: Path, out: Path) -> list[str]:
    files = ["--data", str(source), "--classes", str(source / "classes.json"), "--out", str(out)]
    chosen = ["--benchmark", "folder", "--background-threshold", _BACKGROUND_THRESHOLD, "--pictures", "8"]
    return ["python", "-m", "evaluation.evaluate", "--checkpoint", str(checkpoint), *chosen, *files]


def _training_summary(folder: Path) -> dict[str, Any]:
    values = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {name: values[name] for name in ("epochs", "steps", "rows", "losses", "sampling")}


def _evaluation_summary(folder: Path) -> dict[str, Any]:
    entry = json.loads((folder / "results.json").read_text(encoding="utf-8"))["benchmarks"][0]
    return {name: entry[name] for name in ("miou", "pixel_accuracy", "images")}


def _resolved(command: list[str]) -> list[str]:
    """The command with this environment's own programs."""
    programs = Path(sys.executable).parent
    if command[0] == "python":
        return [sys.executable, *command[1:]]
    beside = programs / command[0]
    return [str(beside) if beside.exists() else command[0], *command[1:]]


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    environment.setdefault("PYSPARK_PYTHON", sys.executable)
    environment.setdefault("SPARK_CONF_DIR", str(Path("cluster_configs/local").resolve()))
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    return environment


def _curation_summary(config: CocuConfig, source: Path) -> dict[str, Any]:
    summary = json.loads((Path(config.workspace) / "summary.json").read_text(encoding="utf-8"))
    archives = tables.read_manifest(config.workspace, "archives")
    rows = (
        (row["key"], row["concepts"])
        for file in archives.files
        for row in pq.read_table(file, columns=["key", "concepts"]).to_pylist()
    )
    summary["gap"] = measure_gap(rows, source / "truth.jsonl", source / "concepts.json")
    return summary


def _store(config: CocuConfig, summary: dict[str, Any]) -> None:
    tables.write_atomically(
        tables.join(str(Path(config.workspace).resolve()), "summary.json"),
        json.dumps(summary, indent=1).encode(),
    )


def _show(summary: dict[str, Any], config: CocuConfig, total: float) -> None:
    gap = summary["gap"]
    print(
        f"\n{summary['pairs_in']:,} pairs in, {summary['pairs_out']:,} out, {summary['concepts']:,} concepts, {total:.0f} s"
    )
    rejected = ", ".join(f"{count} {reason}" for reason, count in summary["rejects"].items())
    print(f"rejected: {rejected or 'none'}")
    print(
        f"of what is visible, captions name {gap['caption_recall']:.0%}; the archives' best five concepts "
        f"{gap['archive_recall_at_5']:.0%} (best three {gap['archive_recall_at_3']:.0%}, "
        f"{gap['archive_precision_at_3']:.0%} of them right)"
    )
    losses, scores = summary["training"]["losses"], summary["evaluation"]
    print(
        f"GroupViT trained on it: loss {losses[0]:.2f} -> {losses[-1]:.2f} in {len(losses)} epochs; on {scores['images']} unseen "
        f"scenes mIoU {scores['miou']:.1f} %, pixel accuracy {scores['pixel_accuracy']:.1f} %"
    )
    print(f"summary: {config.workspace}/summary.json")
    print(f"report:  {config.workspace}/report.html")


if __name__ == "__main__":
    run_entry(main)
