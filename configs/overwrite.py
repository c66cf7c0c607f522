"""The option `overwrite`: false, true, or names of tables."""

from __future__ import annotations

from typing import Any

from configs.errors import UserError

__all__ = ["TABLES", "check_overwrite", "may_replace", "must_rebuild"]

TABLES = (
    "pairs",
    "image_embeddings",
    "duplicates",
    "selection",
    "concepts",
    "pair_concepts",
    "index",
    "probe",
    "archives",
    "training_set",
)


def may_replace(overwrite: bool | list[str], table: str) -> bool:
    """Whether a table that was built from something else may be replaced."""
    return overwrite is True or must_rebuild(overwrite, table)


def must_rebuild(overwrite: bool | list[str], table: str) -> bool:
    """Whether a table is to be built again although it is the right one: its name was given."""
    return isinstance(overwrite, list) and table in overwrite


def check_overwrite(value: Any, where: str, tables: tuple[str, ...] = TABLES) -> None:
    """Refuse what is neither true, false nor a list of table names.

    Args:
        value: the option's.
        where: the file, command line or job that the message names.
        tables: those that may be named there.

    Raises:
        UserError: what was found, and what to write.
    """
    if isinstance(value, bool):
        return
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UserError(
            f"{where}: overwrite is true, false or a list of tables like [archives,training_set], found {value!r}"
        )
    for name in value:
        if name not in tables:
            raise UserError(f"{where}: overwrite names '{name}'; tables here: {', '.join(tables) or 'none'}")
