"""What README and docs name is there: make targets, modules, scripts, files behind links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
TARGETS |= {
    f"submit-{kind}-{device}" for kind in ("standalone", "yarn", "kubernetes") for device in ("cpu", "gpu")
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    assert "@@" not in text, "a placeholder was left"
    missing = [
        f"make {name}"
        for name in re.findall(r"`(?:[A-Z]+=\S+ )*make ([a-z][a-z-]+)", text)
        if name not in TARGETS
    ]
    for module in re.findall(r"python -m ((?:training|evaluation|spark_jobs|demo|models|tests)[\w.]*)", text):
        path = ROOT / module.rstrip(".").replace(".", "/")
        if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
            missing.append(f"python -m {module}")
    for script in re.findall(
        r"(?<![\w/.])((?:spark_jobs|training|scripts|cluster_configs)/[\w/.-]+\.(?:py|sh|yaml|conf))", text
    ):
        if not (ROOT / script).is_file():
            missing.append(script)
    for link in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in link and not (page.parent / link).exists():
            missing.append(link)
    assert missing == []
