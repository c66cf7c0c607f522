"""The folder that a command writes into: made and tried before the work begins, and what is said when it is full."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from configs.errors import UserError, is_full_disk

__all__ = ["make_output_folder", "told_when_full", "write_whole"]


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


@contextlib.contextmanager
def told_when_full(folder: str | Path, option: str) -> Iterator[None]:
    """Around work that writes into a folder.

    Raises:
        UserError: the disk takes no more; ``option`` begins the message.
    """
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise UserError(
            f"{option} {folder}: the disk takes no more ({error.strerror}); free space and run again, or name "
            "another folder"
        ) from None


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that the old or the whole new one is there, never a part; its folder is made.

    Raises:
        OSError: the disk refuses it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
