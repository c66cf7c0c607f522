"""Small JSON files and JSON lines that users give; what is wrong is said with file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.text_files import read_lines, read_text

__all__ = ["read_json", "read_json_lines"]


def read_json(path: str | Path, what: str = "") -> Any:
    """The value in a JSON file; ``what`` says in errors what it is for ("--classes").

    Raises:
        UserError: no such file, not text, not JSON, or a key that stands twice in an object.
    """
    where = f"{what} {path}".strip()
    try:
        return json.loads(read_text(path, where), object_pairs_hook=_unique)
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON: {error}") from None


def read_json_lines(path: str | Path, what: str = "") -> list[tuple[str, dict[str, Any]]]:
    """(file and line number, object) of every line that is not empty.

    Raises:
        UserError: no such file, not text, a line that is no JSON object, or no line at all.
    """
    rows = []
    name = f"{what} {path}".strip()
    for number, line in enumerate(read_lines(path, name), 1):
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
        raise UserError(f"{name}: has no line in it")
    return rows


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; the library would keep the last of two equal keys and say nothing."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key '{key}' stands twice")
        values[key] = value
    return values
