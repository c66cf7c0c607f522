"""Checkpoints: everything an exact resume needs, in one file that is whole or absent.

The file is one of ``models.weights`` (its ``load_model`` reads the weights for evaluation) with more in it:
optimiser, progress (epoch, reader position as stretches of steps, losses), the training set's recipe and the whole
configuration. The learning rate's schedule and all random numbers of every rank are functions of seed and position,
so that there are no generators to store. Plain values and tensors only: reading with ``weights_only`` runs nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError
from configs.loading import to_plain
from configs.schema import CocuConfig
from configs.training import TrainConfig
from models.groupvit import GroupViT, GroupViTConfig
from models.weights import read_weight_file, save_model
from storage.copies import local_file

__all__ = [
    "LAST",
    "find_resume",
    "held_before",
    "load_training",
    "opened",
    "outdated",
    "publish",
    "recorded",
    "write_checkpoint",
]

LAST = "last.pt"
BEST = "best.pt"
_STEP = re.compile(r"step-(\d{9})\.pt")
_PARTS = ("optimiser", "progress", "training_set", "configuration")
# What may differ between a checkpoint and the run that goes on from it: where and how, but not what.
_FREE = frozenset(
    "output init resume epochs reader workers prefetch device precision compile threads nonfinite max_skipped "
    "save_steps keep commit_steps log_steps pictures bad_images accumulate validate".split()
)
_EARLIER = {"held_out": 0}  # what there was before there was such an option, where that is not its default


def recorded(config: CocuConfig, held: int) -> dict[str, Any]:
    """The configuration as a checkpoint holds it, ``train.held_out`` being the number of row groups that it came to."""
    plain = to_plain(config)
    plain["train"]["held_out"] = held
    return plain


def held_before(path: Path, otherwise: int) -> int:
    """How many row groups the training of a checkpoint held out; of one that does not say, what there were then.

    Raises:
        UserError: the file cannot be read.
    """
    configuration = read_weight_file(path, mapped=True).get("configuration")
    if not isinstance(configuration, dict):  # refused later, with the reason
        return otherwise
    return int(configuration["train"].get("held_out", _EARLIER["held_out"]))


def write_checkpoint(folder: Path, step: int, model: GroupViT, **parts: Any) -> Path:
    """Write ``step-<step>.pt``; an interrupted write leaves no file of that name.

    Raises:
        UserError: the disk refuses it.
    """
    path = folder / f"step-{step:09d}.pt"
    try:
        save_model(path, model, **parts)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as RuntimeError
        raise UserError(
            f"{path}: cannot write the checkpoint ({error}); free space or set train.output"
        ) from None
    return path


def publish(path: Path, best: bool, keep: int) -> None:
    """Make a finished checkpoint ``last.pt`` (and ``best.pt``), and delete all but the newest ``keep``."""
    folder = path.parent
    for name in (LAST, BEST) if best else (LAST,):
        temporary = folder / f".{name}.{os.getpid()}.partial"
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)  # the same bytes under a second name
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary)
        temporary.replace(folder / name)
    for name in outdated((found.name for found in folder.iterdir()), keep):
        (folder / name).unlink(missing_ok=True)


def outdated(names: Iterable[str], keep: int) -> list[str]:
    """The checkpoints of steps among some files, but the newest ``keep``."""
    steps = sorted(name for name in names if _STEP.fullmatch(name))
    return steps[: max(len(steps) - keep, 0)]


def find_resume(resume: str, folder: Path) -> str | None:
    """The address of the checkpoint to go on from, or None to start anew."""
    if resume == "never":
        return None
    if resume == "auto":
        return str(folder / LAST) if (folder / LAST).is_file() else None
    return resume


@contextlib.contextmanager
def opened(address: str, option: str, what: str) -> Iterator[Path]:
    """A weight file on this machine or a store, as a path; errors name ``option`` and the address.

    Raises:
        UserError: there is none, it cannot be read, or what is done with it says so.
    """
    path: Path | None = None
    try:
        with local_file(address) as path:
            yield path
    except FileNotFoundError:
        raise UserError(f"{option}={address}: no such {what}; write {_MENDS[option]}") from None
    except OSError as error:
        raise UserError(f"{option}={address}: cannot be read: {' '.join(str(error).split())[:160]}") from None
    except UserError as error:
        if path is None or "://" not in address:
            raise
        raise UserError(str(error).replace(str(path), address)) from None


_MENDS = {
    "train.resume": "auto, never, or the path or address of one",
    "train.init": "the path or address of one, or nothing",
}


def load_training(
    path: Path, model: GroupViT, optimiser: torch.optim.Optimizer, configuration: dict[str, Any], recipe: str
) -> dict[str, Any]:
    """Load weights and optimiser in place; returns the other parts.

    Raises:
        UserError: the file is damaged, holds weights only, is of another size or training set, or was made
            by another training configuration.
    """
    content = read_weight_file(path)
    missing = [name for name in _PARTS if name not in content]
    if missing:
        raise UserError(
            f"{path}: holds weights but no state of training; to start from its weights write train.init={path} "
            "train.resume=never"
        )
    sizes = GroupViTConfig.from_dict(content["config"]).to_dict()
    if sizes != model.config.to_dict():
        raise UserError(
            f"{path}: is of another model ({_first_difference(sizes, model.config.to_dict())}); write the same "
            "train.model and train.model_options, or another train.output"
        )
    if content["training_set"] != recipe:
        raise UserError(
            f"{path}: was trained on a training set of another configuration (recipe {content['training_set']}, "
            f"and the table now has {recipe}); write train.resume=never or another train.output"
        )
    before, now = _bound(content["configuration"]), _bound(configuration)
    if before != now:
        raise UserError(
            f"{path}: was made with another configuration ({_first_difference(before, now, 'train.')}); "
            "write the same, or train.resume=never, or another train.output"
        )
    try:
        model.load_state_dict(content["model"])
        optimiser.load_state_dict(content["optimiser"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{path}: does not fit this model ({' '.join(str(error).split())[:160]})") from None
    return {name: content[name] for name in _PARTS if name != "optimiser"}


def _bound(configuration: dict[str, Any]) -> dict[str, Any]:
    """The options of training that shape its result; a checkpoint from before an option was trained by its default."""
    values = {**to_plain(TrainConfig()), **_EARLIER, **configuration["train"]}
    return {name: value for name, value in values.items() if name not in _FREE}


def _first_difference(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> str:
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            return f"{prefix}{name} was {before.get(name)!r} and is now {now.get(name)!r}"
    return "nothing differs"
