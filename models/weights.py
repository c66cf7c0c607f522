"""Weight files: what a GroupViT is stored in and read from."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError
from models.groupvit import GroupViT, GroupViTConfig

__all__ = ["FORMAT", "load_model", "read_weight_file", "save_model"]

FORMAT = "cocu-groupvit-1"
_REQUIRED = ("format", "config", "model")


def save_model(
    path: str | os.PathLike[str], model: GroupViT, dtype: torch.dtype | None = None, **extra: Any
) -> None:
    """Write the model so that ``path`` is either the old file or the whole new one, never a part.

    ``dtype`` is what weights are stored in, None: as they are; they are read as float32. ``extra`` is kept
    beside them (plain Python values and tensors only: files are read with weights_only).
    """
    clash = sorted(set(extra) & set(_REQUIRED))
    if clash:
        raise ValueError(f"reserved names in extra: {clash}")
    weights = {
        name: value.to(dtype) if dtype is not None and value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    content = {"format": FORMAT, "config": model.config.to_dict(), "model": weights, **extra}
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def load_model(
    path: str | os.PathLike[str], map_location: str | torch.device = "cpu"
) -> tuple[GroupViT, dict[str, Any]]:
    """Read a weight file or a training checkpoint -> the model in evaluation mode, and all else in it.

    The model goes to ``map_location``; what stands beside it stays in the file until it is looked at.

    Raises:
        UserError: the file is missing, truncated, of another format, holds code, or does not fit.
    """
    content = read_weight_file(path, mapped=True)
    model = _build(path, content)
    return model.to(map_location).eval(), {key: value for key, value in content.items() if key != "model"}


def read_weight_file(
    path: str | os.PathLike[str], map_location: str | torch.device = "cpu", mapped: bool = False
) -> dict[str, Any]:
    """The checked content of a weight file, running nothing that is in it.

    ``mapped``: tensors are read from the file when they are used, so that an optimiser that nobody looks at
    costs nothing; the file must stay as long as they are held.

    Raises:
        UserError: as :func:`load_model`, except for sizes.
    """
    if not Path(path).is_file():
        raise UserError(
            f"{path}: no such weight file; write the path of a file that training or models.hf made"
        )
    try:
        content = torch.load(path, map_location=map_location, weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise UserError(_unreadable(path, error)) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        raise UserError(
            f"{path}: truncated or not a weight file ({_first_line(error)}); copy it again or use an earlier checkpoint"
        ) from error
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, Mapping) else type(content).__name__
        raise UserError(
            f"{path}: its format is {found!r}, not {FORMAT!r}; for a Hugging Face checkpoint run python -m models.hf first"
        )
    missing = [name for name in _REQUIRED if not content.get(name)]
    if missing:
        raise UserError(
            f"{path}: lacks {', '.join(missing)}; it is not a file of this program, write another"
        )
    return dict(content)


def _build(path: str | os.PathLike[str], content: Mapping[str, Any]) -> GroupViT:
    try:
        config = GroupViTConfig.from_dict(content["config"])
    except (UserError, TypeError) as error:
        raise UserError(f"{path}: {error}") from error
    tensors = content["model"]
    if not isinstance(tensors, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in tensors.values()
    ):
        raise UserError(
            f"{path}: its entry 'model' is not a table of tensors; use a file that save_model wrote"
        )
    model = GroupViT(config)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise UserError(
            f"{path}: {len(wrong)} tensors do not fit its configuration, first {name}: "
            f"{found.get(name, 'missing')} in the file, {expected.get(name, 'none')} in the model; use a whole file"
        )
    model.load_state_dict(tensors)
    return model


def _unreadable(path: str | os.PathLike[str], error: Exception) -> str:
    if "Unsupported global" in str(error) or "GLOBAL" in str(error):
        return (
            f"{path}: holds Python objects that could run code, so it was not opened ({_first_line(error)}); "
            "use a file of tensors and plain values"
        )
    return f"{path}: truncated or not a weight file ({_first_line(error)}); copy it again or use another"


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:160]
