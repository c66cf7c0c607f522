"""Lists of classes that users give, read alike by all commands: a text file, JSON, or words on the command line.

Dropping or moving one name would number all later classes wrongly, so a list is taken whole or refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.json_files import read_json
from configs.text_files import read_lines
from evaluation.class_names import BACKGROUND

__all__ = [
    "check_class_names",
    "read_class_list",
    "read_class_words",
    "read_numbered_classes",
    "without_background",
]

_TABLES = frozenset(".csv .tsv .yaml .yml .xlsx .jsonl".split())
_LISTS = _TABLES | {".txt", ".json", ".names", ".list"}
_SEPARATORS = ",;|\n\t"


def read_numbered_classes(path: str | Path, option: str) -> dict[int, str]:
    """Number in the masks -> class name, from a file, in the order of the numbers.

    A text file has one name a line, the first being number 0. JSON is a list of names, ``{"0": "name", ...}``,
    or ``[{"index": 0, "name": "..."}, ...]``; with numbers of their own some may be left out.

    Raises:
        UserError: no such file, no text, another form, a blank line among the names, names that cannot be
            told apart, or ``background`` with another number than 0. ``option`` begins the message.
    """
    where, suffix = f"{option} {path}", Path(path).suffix.lower()
    if suffix in _TABLES:
        raise UserError(
            f"{where}: a list of classes is a .txt file with one name a line, or .json; write one"
        )
    if suffix == ".json":
        pairs = sorted(_pairs(read_json(path, option), where))
    else:
        pairs = list(enumerate(_text_names(path, where)))
    check_class_names([name for _, name in pairs], where)
    for number, name in pairs:
        if name.casefold() == BACKGROUND and number != 0:
            raise UserError(
                f"{where}: '{name}' is class {number}; it stands for pixels that are none of the others, and has to be 0, "
                "the first"
            )
    if len({number for number, _ in pairs}) < len(pairs) or pairs[0][0] < 0:
        raise UserError(f"{where}: a number stands twice or is negative; number the classes 0, 1, 2, ...")
    return {number: BACKGROUND if name.casefold() == BACKGROUND else name for number, name in pairs}


def read_class_list(path: str | Path, option: str) -> list[str]:
    """Class names in the order of their numbers, as :func:`read_numbered_classes`, none of them left out.

    Raises:
        UserError: as there, or a number is missing.
    """
    classes = read_numbered_classes(path, option)
    missing = next((number for number in range(len(classes)) if number not in classes), None)
    if missing is not None:
        raise UserError(
            f"{option} {path}: has no class {missing}; number them from 0 without a gap ('{BACKGROUND}' may be 0)"
        )
    return list(classes.values())


def read_class_words(text: str, option: str) -> list[str]:
    """Class names from the command line, "dog, grass, sky", or from a file as :func:`read_class_list` reads it.

    Commas, semicolons, bars and line ends separate; one kind of them at a time, as a name may hold another.

    Raises:
        UserError: a folder, a file that is not there, several kinds of separators, or what a list may not be.
    """
    if text.strip() and not any(mark in text for mark in _SEPARATORS):
        if Path(text).is_dir():
            raise UserError(
                f'{option} {text}: is a folder; write "dog, grass, sky" or a file with one name a line'
            )
        if Path(text).suffix.lower() in _LISTS or Path(text).is_file():
            return read_class_list(text, option)
    kinds = [mark for mark in _SEPARATORS if mark in text.strip()]
    if len(kinds) > 1:
        raise UserError(
            f"{option} '{text}': is separated by {' and '.join(map(repr, kinds))}; use one, or a file with one name a line"
        )
    names = [" ".join(name.split()) for name in re.split(f"[{_SEPARATORS}]", text.strip())]
    check_class_names(names, option)
    if BACKGROUND in [name.casefold() for name in names[1:]]:
        raise UserError(
            f"{option}: write '{BACKGROUND}' first; it stands for pixels that are none of the others"
        )
    return [BACKGROUND, *names[1:]] if names[0].casefold() == BACKGROUND else names


def without_background(names: Sequence[str], where: str) -> list[str]:
    """The classes that are put into prompts.

    Raises:
        UserError: there is none besides the background.
    """
    kept = list(names[1:] if names[0] == BACKGROUND else names)
    check_class_names(kept, f"{where}, besides {BACKGROUND}")
    return kept


def check_class_names(names: Sequence[str], where: str) -> None:
    """Refuse class lists that cannot be told apart; ``where`` names the file or option.

    Raises:
        UserError: no class, an empty name, or two names that differ in case and spaces only.
    """
    if not names:
        raise UserError(f"{where}: no class names; write at least one")
    seen: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        key = " ".join(name.split()).casefold()
        if not key:
            raise UserError(f"{where}: class {number} has no name; write one or remove it")
        if key in seen:
            raise UserError(
                f"{where}: classes {seen[key]} and {number} are both '{name.strip()}'; "
                "give each class a name of its own"
            )
        seen[key] = number


def _text_names(path: str | Path, where: str) -> list[str]:
    names = [" ".join(line.split()) for line in read_lines(path, where)]
    if "" in names:
        raise UserError(
            f"{where}, line {names.index('') + 1}: is blank; remove it, or write the class that has this number"
        )
    return names


def _pairs(values: Any, where: str) -> list[tuple[int, str]]:
    """(number, name) in any order."""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(values, dict):
        pairs = list(values.items())
    elif isinstance(values, list):
        pairs = [
            (entry.get("index"), entry.get("name")) if isinstance(entry, dict) else (number, entry)
            for number, entry in enumerate(values)
        ]
    try:
        if isinstance(values, dict | list) and all(isinstance(name, str) for _, name in pairs):
            return [(int(number), " ".join(name.split())) for number, name in pairs]
    except (ValueError, TypeError):
        pass
    raise UserError(
        f'{where}: write a list of names (the first is number 0), {{"0": "name", ...}} or [{{"index": 0, "name": "..."}}, ...]'
    )
