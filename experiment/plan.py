"""Which runs an experiment has, and what tells one from another."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from configs.errors import UserError
from configs.schema import CocuConfig

__all__ = [
    "LOSSES",
    "MEASURES",
    "METHODS",
    "OURS",
    "Method",
    "Run",
    "TrainingTable",
    "output_folder",
    "plan_runs",
]

MEASURES = "measures.jsonl"
"""File in the folder of a run: a line a checkpoint."""


@dataclass(frozen=True)
class TrainingTable:
    """A training set: the pairs are the same in all, the archives are not.

    ``words``: ``archives`` (as curated), ``none`` (empty: what a method without curation knows) or ``truth``.
    """

    name: str
    ranking: str = "calibrated"
    words: str = "archives"


@dataclass(frozen=True)
class Method:
    """Where a run's texts beside the caption come from."""

    title: str
    table: TrainingTable
    sampling: str
    temperature: float | None = None
    """of the draws; None: the configuration's. The paper's scores lie closer together than ours (docs/method.md), so that
    at our temperature its draws would be even ones"""


_NONE = TrainingTable("captions", words="none")
_PAPER = TrainingTable("paper", ranking="paper")
OURS = TrainingTable("calibrated")
"""Curated whole; the others share what they can with it."""
_TRUTH = TrainingTable("truth", words="truth")

METHODS = {
    "caption": Method("caption alone", _NONE, "none"),
    "caption-nouns": Method("nouns of the caption (GroupViT)", _NONE, "caption-nouns"),
    "top": Method("top of the paper's ranking (authors' code)", _PAPER, "top"),
    "cluster-paper": Method("clusters, paper's ranking (CoCu)", _PAPER, "cluster", 0.03),
    "cluster": Method("clusters, our ranking", OURS, "cluster"),
    "truth": Method("the truth as texts (ceiling)", _TRUTH, "cluster"),
}
"""By name; the order is that of the tables."""

_PAPER_LOSSES = {"reduction": "log_sum", "negatives": "all", "match": "pooled"}
_PAPER_FORM = {
    **_PAPER_LOSSES,
    "model_options.stem": "linear",
    "model_options.assign_gain": "0",
    "model_options.assign_centred": "false",
}
_CHANGES = {
    "gain": {"model_options.assign_gain": "1.5"},
    "centred": {"model_options.assign_centred": "true"},
    "stem": {"model_options.stem": "convolution"},
    "archive": {"negatives": "archive"},
    "compete": {"match": "compete"},
    "each": {"reduction": "each"},
}

LOSSES: dict[str, dict[str, str]] = {
    "paper": _PAPER_LOSSES,
    "ours": {},
    "paper-form": _PAPER_FORM,
    **{f"paper-form+{name}": {**_PAPER_FORM, **change} for name, change in _CHANGES.items()},
}
"""Overrides of ``train``; ``ours`` is what the configuration says. ``paper-form`` also takes the model's initialisation and
stem as the paper has them; with one change after the plus sign it is an ablation."""


@dataclass(frozen=True)
class Run:
    """One training of the experiment."""

    method: str
    losses: str
    seed: int
    folder: Path
    save_steps: int
    overrides: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Folder name, and what its lines of the log begin with."""
        return self.folder.name


def output_folder(config: CocuConfig) -> Path:
    """Where runs and report lie.

    Raises:
        UserError: the workspace is not on this machine's file systems.
    """
    if "://" in config.workspace or "://" in config.experiment.output:
        raise UserError(
            "experiment: workspace and experiment.output must be folders of this machine or of a shared disk, found "
            f"workspace={config.workspace} experiment.output={config.experiment.output}"
        )
    return Path(config.experiment.output or f"{config.workspace}/experiment")


def plan_runs(config: CocuConfig, rows: int) -> list[Run]:
    """All runs, a seed at a time, so that an interrupted experiment holds whole comparisons.

    Data order, augmentation, schedule and number of texts are the same in all; the seed decides them together with
    the initial weights.

    Args:
        rows: of the training set.

    Raises:
        UserError: an unknown method or kind of losses, or no seed.
    """
    options = config.experiment
    _check(options.methods, METHODS, "methods")
    _check(options.losses, LOSSES, "losses")
    if not options.seeds:
        raise UserError("experiment.seeds=[]: write at least one, e.g. [0]")
    out = output_folder(config)
    steps = config.train.epochs * math.ceil(rows / config.train.batch_size)
    every = max(1, math.ceil(steps / options.points))
    return [
        Run(method, losses, seed, out / "runs" / f"{method}-{losses}-{seed}", every, _overrides(out, method, losses, seed, every))
        for seed in options.seeds
        for losses in options.losses
        for method in options.methods
    ]  # fmt: skip


def _check(names: list[str], known: dict[str, object] | dict[str, Method], option: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UserError(
            f"experiment.{option}: {', '.join(unknown) or 'nothing'} is not one of {', '.join(known)}"
        )


def _overrides(out: Path, method: str, losses: str, seed: int, every: int) -> list[str]:
    chosen = METHODS[method]
    values = {
        "workspace": out / "tables" / chosen.table.name,
        "train.output": out / "runs" / f"{method}-{losses}-{seed}" / "training",
        "train.sampling": chosen.sampling,
        "train.seed": seed,
        "train.save_steps": every,
        "train.keep": 10_000,  # all of them are evaluated
        "train.pictures": 0,
        "train.threads": 1,
        "train.workers": 1,
        **{f"train.{name}": value for name, value in LOSSES[losses].items()},
    }
    if chosen.temperature is not None:
        values["train.temperature"] = chosen.temperature
    return [f"{name}={value}" for name, value in values.items()]
