"""The ``experiment`` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from configs.options import option

__all__ = ["ExperimentConfig"]


@dataclass
class ExperimentConfig:
    """Methods against each other: one corpus, one order, one schedule; only the texts (and the losses) differ."""

    output: str = option("", "folder of runs and report; empty: <workspace>/experiment")
    methods: list[str] = option(
        ["caption", "caption-nouns", "top", "cluster-paper", "cluster", "truth"],
        "texts of a run: caption | caption-nouns (the GroupViT baseline) | top (what the authors' code does) | "
        "cluster-paper (clusters on the paper's ranking) | cluster (on ours) | truth (the scenes' own labels)",
    )
    losses: list[str] = option(
        ["paper", "ours"],
        "paper: train.reduction=log_sum, all negatives, pooled; ours: those of `train`; paper-form: paper, and the model's "
        "initialisation and stem as well; paper-form+gain, +centred, +stem, +archive, +compete, +each: with one change",
    )
    seeds: list[int] = option([0, 1, 2], "each method is trained once a seed")
    points: int = option(3, "checkpoints of a run that are evaluated, evenly spread, the last one included")
    jobs: int = option(2, "runs side by side, each on one thread; 0: report what is measured, begin no run")
    scenes: int = option(12_000, "pairs to draw for the corpus `demo`; 0: the corpora are your own")
    eval_scenes: int = option(200, "unseen scenes to draw")
    scene_seed: int = option(11, "of the scenes; another one than the demo's and its models'")
    stride: int = option(
        32, "pixels between windows on the drawn scenes; 16, the demo's, takes three times as long"
    )
    evaluate: list[str] = option(
        [],
        "arguments of evaluation.evaluate, e.g. [--benchmark, voc, --data, /data]; empty: the drawn scenes, whole",
    )
