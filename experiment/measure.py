"""Evaluate all checkpoints of one run: ``python -m experiment.measure RUN --config FILE [key=value ...]``.

Each is evaluated by evaluation.evaluate, i.e. by mmsegmentation; on the drawn scenes also by what tells grouping and
naming apart (experiment.diagnosis). A line a checkpoint goes to RUN/measures.jsonl; what is there is not done again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from configs.errors import UserError, run_entry
from configs.loading import load_config
from configs.schema import CocuConfig
from demo.segmentation import SIDE, WINDOW, evaluate_command, intersection_over_union, read_segmentation
from demo.voc import VOC_FOLDER
from demo.world.scenes import GROUND_LABELS, THINGS
from evaluation.evaluate import main as evaluate
from experiment.diagnosis import diagnose
from experiment.plan import MEASURES, output_folder
from models.weights import load_model, read_weight_file

__all__ = ["main", "measure_checkpoint"]


def main(argv: list[str]) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiment.measure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--config", required=True, help="that of the experiment")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="that of the experiment")
    options = parser.parse_intermixed_args(argv)  # overrides on both sides of --config
    config = load_config(options.config, options.overrides)
    file = options.run / MEASURES
    done = (
        {row["step"] for row in map(json.loads, file.read_text().splitlines())} if file.is_file() else set()
    )
    for checkpoint in _checkpoints(options.run / "training", config.train.save_steps):
        content = read_weight_file(checkpoint)["progress"]
        if content["global_step"] in done:
            continue
        row = {
            "step": content["global_step"],
            "images": content["rows"],
            **measure_checkpoint(config, checkpoint),
        }
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
    return 0


def _checkpoints(training: Path, every: int) -> list[Path]:
    """Those at the points of the plan and the last one, in order."""
    found = sorted(training.glob("step-*.pt"))
    if not found:
        raise UserError(f"{training}: no checkpoint; train first (python -m experiment does both)")
    chosen = [path for path in found if int(path.stem.removeprefix("step-")) % every == 0]
    return chosen if found[-1] in chosen else [*chosen, found[-1]]


def measure_checkpoint(config: CocuConfig, checkpoint: Path) -> dict[str, Any]:
    """Percent: ``miou``, ``accuracy`` and ``classes``; on the drawn scenes also the others of experiment.json."""
    results = checkpoint.with_suffix(".evaluation")
    if config.experiment.evaluate:
        evaluate(["--checkpoint", str(checkpoint), "--out", str(results), *config.experiment.evaluate])
        entry = json.loads((results / "results.json").read_text(encoding="utf-8"))["benchmarks"][0]
        return {"miou": entry["miou"], "accuracy": entry["pixel_accuracy"], "classes": entry["classes"]}
    source = output_folder(config) / "source"
    command = evaluate_command(checkpoint, source, results, stride=config.experiment.stride)
    evaluate(command[3:])  # without `python -m module`
    found = read_segmentation(results)
    model, _ = load_model(checkpoint)
    classes = json.loads((source / "classes.json").read_text(encoding="utf-8"))
    seen = diagnose(model, _pictures(source), classes, SIDE, WINDOW)
    oracle = intersection_over_union(seen.oracle)
    return {
        **{
            name: found[name] for name in ("miou", "miou_things", "miou_grounds", "accuracy", "constant_miou")
        },
        "oracle_miou": round(100 * float(np.nanmean(oracle)), 2),
        "tagging_map": round(100 * seen.tagging_map, 2),
        "classes": _class_figures(results, [*THINGS, *GROUND_LABELS]),
    }


def _class_figures(results: Path, names: list[str]) -> dict[str, float]:
    entry = json.loads((results / "results.json").read_text(encoding="utf-8"))["benchmarks"][0]
    return {name: entry["classes"][name] for name in names if entry["classes"].get(name) is not None}


def _pictures(source: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    root = source / VOC_FOLDER
    for name in (root / "ImageSets/Segmentation/val.txt").read_text(encoding="utf-8").split():
        photo = np.asarray(Image.open(root / "JPEGImages" / f"{name}.jpg").convert("RGB"))
        yield photo, np.asarray(Image.open(root / "SegmentationClass" / f"{name}.png"))


if __name__ == "__main__":
    run_entry(main)
