"""`make demo`: scenes, curation, training, evaluation and report, each by its real entry.

Every step is the command that a user would type; it is printed before it runs. Minutes do not teach a GroupViT to
segment, so it goes on from demo/groupvit, which was trained for longer on other scenes
(`make demo-groupvit`): that model is evaluated on unseen scenes, trained for about a minute on the pairs that were
curated here, and evaluated again. The summary of the whole lands in `workspace/demo/summary.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from configs.errors import run_entry
from configs.loading import load_config
from configs.paths import expand_home
from configs.schema import CocuConfig
from demo.gap import measure_gap
from demo.rankings import compare_rankings
from demo.scene_pictures import write_pictures
from demo.segmentation import evaluate_command, read_segmentation
from demo.steps import Steps
from storage import tables
from storage.small_files import write_atomically

__all__ = ["main"]

CONFIG = "configs/demo.yaml"
_PICTURES = 8


def main(argv: list[str]) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=expand_home, default=CONFIG, help="another configuration file")
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
    started, steps = time.monotonic(), Steps()
    numbers = ["--pairs", str(arguments.pairs), "--eval-scenes", str(arguments.eval_scenes)]
    numbers += ["--seed", str(arguments.seed)]
    steps.run("generate", ["python", "-m", "demo.generate", "--out", str(source), *numbers])
    steps.run("curate", ["spark-submit", "spark_jobs/pipeline.py", *common])
    summary = _curation_summary(config, source)
    summary["seconds"]["generate"] = steps.seconds["generate"]
    summary["seconds"]["curation, with Spark's start"] = steps.seconds["curate"]
    _store(config, summary)
    _segment(config, common, source, steps, summary)
    steps.run("report", ["python", "-m", "spark_jobs.report", *common])
    _show(summary, config, time.monotonic() - started)
    return 0


def _segment(
    config: CocuConfig, common: list[str], source: Path, steps: Steps, summary: dict[str, Any]
) -> None:
    """Evaluate and show the model that training starts from, if there is one; train, evaluate again."""
    workspace, start = Path(config.workspace), Path(config.train.init)
    results = workspace / "evaluation"
    after = workspace / "evaluation-trained" if config.train.init else results
    checkpoint = Path(config.train.output or workspace / "training") / "last.pt"
    if config.train.init:
        steps.run("evaluate", evaluate_command(start, source, results))
        write_pictures(start, source, results / "pictures", _PICTURES)
        summary["segmentation"] = read_segmentation(results)
        _store(config, summary)
    steps.run("train", ["python", "-m", "training.train", *common])
    steps.run("evaluate after training", evaluate_command(checkpoint, source, after))
    if not config.train.init:
        write_pictures(checkpoint, source, results / "pictures", _PICTURES)
    summary["training"] = _training_summary(checkpoint.parent)
    summary["segmentation_trained"] = read_segmentation(after)
    summary.setdefault("segmentation", summary["segmentation_trained"])
    summary["seconds"].update(steps.seconds)
    _store(config, summary)


def _training_summary(folder: Path) -> dict[str, Any]:
    values = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {name: values[name] for name in ("epochs", "steps", "rows", "losses", "sampling")}


def _curation_summary(config: CocuConfig, source: Path) -> dict[str, Any]:
    summary = json.loads((Path(config.workspace) / "summary.json").read_text(encoding="utf-8"))
    archives = tables.read_manifest(config.workspace, "archives")
    rows = (
        (row["key"], row["concepts"])
        for file in archives.files
        for row in pq.read_table(file, columns=["key", "concepts"]).to_pylist()
    )
    truth, words = source / "truth.jsonl", source / "concepts.json"
    summary["gap"] = measure_gap(rows, truth, words)
    workspace = str(Path(config.workspace).resolve())
    summary["gap"].update(compare_rankings(workspace, truth, words, config))
    return summary


def _store(config: CocuConfig, summary: dict[str, Any]) -> None:
    write_atomically(
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
    for name, found in gap["rankings"].items():
        print(
            f"  by the ranking {name}: best five {found['archive_recall_at_5']:.0%}, of the best three "
            f"{found['archive_precision_at_3']:.0%} right"
        )
    _show_segmentation(summary)
    print(f"summary: {config.workspace}/summary.json")
    print(f"report:  {config.workspace}/report.html")


def _show_segmentation(summary: dict[str, Any]) -> None:
    shown, trained = summary["segmentation"], summary["segmentation_trained"]
    training = summary["training"]
    print(f"GroupViT on {shown['scenes']} unseen scenes, every pixel one of 42 labels:")
    print(f"  demo/groupvit, the model that the report shows: {_figures(shown)}")
    print(f"  after {training['rows']:,} more images, of the pairs above:    {_figures(trained)}")
    print(
        f"  without looking at a picture: mIoU {shown['constant_miou']:.1f} % by the best constant answer, "
        f"{shown['chance_miou']:.1f} % by chance"
    )


def _figures(found: dict[str, Any]) -> str:
    return (
        f"mIoU {found['miou']:.1f} % (things {found['miou_things']:.1f}, grounds {found['miou_grounds']:.1f}), "
        f"{found['accuracy']:.1f} % of the pixels right"
    )


if __name__ == "__main__":
    run_entry(main)
