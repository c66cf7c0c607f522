"""docs/dataframes.md, run from top to bottom as a notebook would be."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests import harness

pytestmark = pytest.mark.slow
PAGE = harness.ROOT / "docs" / "dataframes.md"


def test_the_pages_code_runs(spark, curated, tmp_path, monkeypatch, capsys):
    """The demo's place is taken by the small corpus; the configuration of its own is read where the page says."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.yaml").symlink_to(curated.folder / "config.yaml")
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "demo").symlink_to(curated.workspace)
    photos = pq.read_table(curated.folder / "source" / "00000.parquet", columns=["image", "caption"])
    pq.write_table(photos, curated.workspace / "photos.parquet")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 7
    for number, block in enumerate(blocks):
        # The JVM does not follow when Python changes its folder: paths that Spark is given are made absolute.
        block = block.replace('"workspace/demo', f'"{tmp_path}/workspace/demo')
        block = block.replace("read_manifest(config.workspace", f'read_manifest("{tmp_path}/workspace/demo"')
        exec(compile(block, f"{PAGE.name}, block {number + 1}", "exec"), names)  # (what this test is for)
    assert names["spark"] is spark
    shown = capsys.readouterr().out
    assert "missing_image" in shown
    assert "truncated_image" in shown
    assert re.search(r"web/\d{5}/\d{5}", shown)
    result = pq.read_table(Path("workspace/demo/photos_curated.parquet"))
    assert result.num_rows == 57
    assert all(result.column("concepts").to_pylist())
    assert result.column_names[:2] == ["image", "caption"]
