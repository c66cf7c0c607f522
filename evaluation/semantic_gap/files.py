"""Small text files of the user: JSON and JSON lines, with errors that name file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from configs.errors import UserError

__all__ = ["read_json", "read_json_lines"]


def read_json(path: str | Path, what: str) -> Any:
    """The value in a JSON file; ``what`` says in errors what it is for ("--classes").

    Raises:
        UserError: no such file, not text, or not JSON.
    """
    try:
        return json.loads(_read(path, what))
    except ValueError as error:
        raise UserError(f"{what} {path}: not valid JSON: {error}") from None


def read_json_lines(path: str | Path, what: str) -> list[tuple[str, dict[str, Any]]]:
    """(file and line number, object) of every line that is not empty.

    Raises:
        UserError: no such file, not text, a line that is no JSON object, or no line at all.
    """
    rows = []
    for number, line in enumerate(_read(path, what).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where}: not valid JSON ({error}); write one object a line") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: found a {type(row).__name__}; write one object a line")
        rows.append((where, row))
    if not rows:
        raise UserError(f"{what} {path}: has no line in it")
    return rows


def _read(path: str | Path, what: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{what} {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path}: cannot be read as text: {error}") from None
