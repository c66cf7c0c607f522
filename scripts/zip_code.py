"""Writes this project's packages into one zip for spark-submit --py-files: python scripts/zip_code.py dist/cocu.zip.

Which folders, setup.cfg says ([options.packages.find]); what is in them goes along, data files too.
"""

from __future__ import annotations

import configparser
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def top_folders() -> list[str]:
    """The folders of setup.cfg's packages, without sub-packages, which lie inside."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    names = settings["options.packages.find"]["include"].split()
    return [name for name in names if not name.endswith(".*")]


def write_zip(target: Path) -> None:
    """The zip, replaced by one rename; the same sources make the same file."""
    temporary = target.with_suffix(".zip.new")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in top_folders():
            for file in sorted((ROOT / folder).rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    entry = zipfile.ZipInfo(str(file.relative_to(ROOT)), (2020, 1, 1, 0, 0, 0))
                    entry.external_attr = 0o644 << 16
                    archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)
    temporary.replace(target)


if __name__ == "__main__":
    write_zip(Path(sys.argv[1]))
    print(sys.argv[1])
