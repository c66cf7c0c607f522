"""How the sections of the configuration declare an option."""

from __future__ import annotations

from dataclasses import field
from typing import Any

__all__ = ["option"]


def option(default: Any, text: str) -> Any:
    """A dataclass field with a default and the text that ``--help`` prints."""
    metadata = {"help": text}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)
