"""Paths as users write them."""

from __future__ import annotations

from pathlib import Path

from configs.errors import UserError

__all__ = ["expand_home", "home_path"]


def expand_home(text: str) -> str:
    """A text that begins with ``~`` is a path below a home: no shell expands it behind a ``=``, in quotes or in YAML.

    Fit for argparse's ``type``.

    Raises:
        UserError: there is no such user.
    """
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise UserError(f"{text}: this machine knows no such user; write the path out") from None


def home_path(text: str) -> Path:
    """:func:`expand_home` as a path."""
    return Path(expand_home(text))
