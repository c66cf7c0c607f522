"""Train the demo's GroupViT anew, by the product's own commands: scenes, curation, training, evaluation.

  make demo-groupvit          (python -m demo.train_groupvit)

Everything lies in the workspace of configs/demo-groupvit.yaml and is gone on with when it is interrupted. At the end
demo/groupvit/weights.pt (half precision) and the README beside it are replaced.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError, run_entry
from configs.loading import load_config
from configs.paths import expand_home, home_path
from demo.segmentation import evaluate_command, read_segmentation
from demo.steps import Steps
from models.average import average_models
from models.weights import save_model

__all__ = ["FOLDER", "main"]

FOLDER = Path(__file__).parent / "groupvit"
CONFIG = "configs/demo-groupvit.yaml"
_MOST_BYTES = 8_000_000


def main(argv: list[str]) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.train_groupvit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=expand_home, default=CONFIG, help="another configuration file")
    parser.add_argument(
        "--pairs", type=int, default=60_000, help="generated image-caption pairs (default %(default)s)"
    )
    parser.add_argument(
        "--eval-scenes", type=int, default=400, help="unseen scenes to judge by (default %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=7, help="of the scenes (default %(default)s); the demo's own is 0"
    )
    parser.add_argument("--out", type=home_path, default=FOLDER, help="folder for weights.pt and README.md")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="configuration overrides")
    options = parser.parse_args(argv)
    config = load_config(options.config, options.overrides)
    workspace, common = Path(config.workspace), ["--config", options.config, *options.overrides]
    source, results = workspace / "source", workspace / "evaluation"
    numbers = [
        "--pairs",
        str(options.pairs),
        "--eval-scenes",
        str(options.eval_scenes),
        "--seed",
        str(options.seed),
    ]
    steps = Steps()
    steps.run("generate", ["python", "-m", "demo.generate", "--out", str(source), *numbers])
    steps.run("curate", ["spark-submit", "spark_jobs/pipeline.py", *common])
    steps.run("train", ["python", "-m", "training.train", *common])
    training = Path(config.train.output or workspace / "training")
    weights = options.out / "weights.pt"
    _store(sorted(training.glob("step-*.pt")), weights)
    steps.run("evaluate", evaluate_command(weights, source, results))
    summary = json.loads((training / "summary.json").read_text(encoding="utf-8"))
    (options.out / "README.md").write_text(
        _readme(read_segmentation(results), summary, _hours(training), options, weights), encoding="utf-8"
    )
    return 0


def _store(checkpoints: list[Path], weights: Path) -> None:
    """The mean of the last checkpoints' weights (``train.keep`` of them), in half precision.

    Raises:
        UserError: they are too many for a file that is kept with the source.
    """
    save_model(weights, average_models(checkpoints), dtype=torch.float16)
    size = weights.stat().st_size
    if size > _MOST_BYTES:
        raise UserError(
            f"{weights}: {size / 1e6:.1f} MB are more than the {_MOST_BYTES / 1e6:.0f} MB that are kept with the "
            "source; choose a smaller train.model or train.model_options"
        )


def _hours(training: Path) -> float:
    """Of all epochs, whichever run they were of: a training that was interrupted is gone on with."""
    lines = (training / "epochs.jsonl").read_text(encoding="utf-8").splitlines()
    return sum(json.loads(line)["seconds"] for line in lines) / 3600


def _readme(
    found: dict[str, Any], summary: dict[str, Any], hours: float, options: argparse.Namespace, weights: Path
) -> str:
    return f"""# The demo's GroupViT

A small GroupViT (preset `demo`: 64-pixel images, 16 groups, a convolutional stem; {summary["parameters"]:,} parameters
in half precision, {weights.stat().st_size / 1e6:.2f} MB) that knows the demo's drawn world and nothing else.

Made by `make demo-groupvit`: {options.pairs:,} drawn scenes (seed {options.seed}; the demo's are of another) with captions that
name one or two things, curated by the pipeline into concept archives, then {summary["epochs"]} epochs
({summary["rows"]:,} images, {hours:.1f} hours) by `{options.config}`; the mean of the last checkpoints is kept. It has seen no mask and no label. Its
archives come from the tiny CLIP, which was trained on full captions of other scenes (docs/training.md says what that
CLIP's share is). Training again gives like figures, not the same bytes.

Measured on {found["scenes"]} unseen scenes, all 42 labels, every pixel scored, no threshold (pictures of 128 pixels through
windows of 64, stride 16):

| measure, percent | value |
| --- | --- |
| mIoU, all labels | {found["miou"]:.1f} |
| mIoU, things | {found["miou_things"]:.1f} |
| mIoU, grounds | {found["miou_grounds"]:.1f} |
| pixels right | {found["accuracy"]:.1f} |
| mIoU of the best constant answer | {found["constant_miou"]:.1f} |
| mIoU of a label drawn by chance for each pixel | {found["chance_miou"]:.1f} |
"""


if __name__ == "__main__":
    run_entry(main)
