"""The folder that a command writes into, made and tried before the work begins."""

from __future__ import annotations

import tempfile
from pathlib import Path

from configs.errors import UserError

__all__ = ["make_output_folder"]


def make_output_folder(path: str | Path, option: str) -> Path:
    """The folder, made if it is not there, after a file could be made in it.

    Raises:
        UserError: no folder can be made there or nothing written in it; ``option`` begins the message.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        reason = (
            "a file stands there"
            if isinstance(error, FileExistsError | NotADirectoryError)
            else error.strerror
        )
        raise UserError(
            f"{option} {folder}: nothing can be written there ({reason}); name another folder"
        ) from None
