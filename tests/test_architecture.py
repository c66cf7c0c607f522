"""docs/architecture.md's table of packages says what is imported."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = (
    "configs",
    "storage",
    "corpora",
    "curation",
    "models",
    "spark_jobs",
    "training",
    "evaluation",
    "demo",
    "experiment",
)
ROOMS = sorted(
    str(path.parent.relative_to(ROOT)) for top in TOP for path in (ROOT / top).rglob("__init__.py")
)


def _table() -> dict[str, tuple[str, str]]:
    """Room -> its columns of imports: of this project, of others."""
    lines = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines()
    rows = [line.strip("|").split("|") for line in lines if re.match(r"\| `[a-z_/]+/` \|", line)]
    return {row[0].strip(" `/"): (row[2], row[3]) for row in rows if len(row) == 4}


def _imports(room: str) -> set[str]:
    """Dotted names that the modules directly in a room import, wherever in the file."""
    found = set()
    for file in (ROOT / room).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _room_of(name: str) -> str:
    parts = name.split(".")
    return next("/".join(parts[:size]) for size in (2, 1) if "/".join(parts[:size]) in ROOMS)


def test_every_room_has_a_row():
    assert sorted(_table()) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_imports_is_in_its_row(room):
    ours, others = _table()[room]
    names = {name for name in _imports(room) if name.split(".")[0] not in sys.stdlib_module_names}
    used = {_room_of(name) for name in names if name.split(".")[0] in TOP} - {room}
    listed = set(ROOMS) if "all below" in ours else set(re.findall(r"`([a-z_/]+)`", ours))
    assert used <= listed, f"not in the table: {sorted(used - listed)}"
    third = {name.split(".")[0] for name in names} - set(TOP)
    assert third <= set(re.findall(r"[A-Za-z_0-9]+", others)), sorted(third)
    if "all below" not in ours:
        assert listed <= used, f"in the table and not imported: {sorted(listed - used)}"
