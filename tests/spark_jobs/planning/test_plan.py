"""`--plan` and `limit`: what is foretold is what comes, and nothing is touched."""

from __future__ import annotations

import dataclasses
import re
import sys

import pytest

from configs.loading import load_config
from spark_jobs import export_training, ingest, pipeline
from spark_jobs.planning.costs import BUILDS, measured, table_bytes
from storage import tables
from tests import harness

LINE = re.compile(
    r"^(\w+) +([\d,?]+) +([\d,?]+) +(\S+ ?[kMGT]?B|\?) +(\S+ ?[kMGT]?B|\?) +(\S+ [kMGT]?B) +(\S+ (?:s|min|h)|\?) +(.+)$"
)
SIZES = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}


def _lines(text: str) -> dict[str, tuple[str, ...]]:
    found = [LINE.match(line) for line in text.splitlines()]
    return {match[1]: match.groups()[1:] for match in found if match}


def _size(text: str) -> float:
    number, unit = text.split()
    return float(number) * SIZES[unit]


def _files(folder) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_a_plan_of_everything_by_what_another_workspace_measured(curated, tmp_path, monkeypatch, capsys):
    """The same corpus again: units, rows and bytes are those of the tables that are there."""
    before = _files(curated.folder)
    options = [f"workspace={tmp_path}/new", f"plan.measured={curated.workspace}", "plan.slots=2"]
    argv = ["pipeline.py", *options[:1], "--plan", "-c", str(curated.folder / "config.yaml"), *options[1:]]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as ended:
        pipeline.main()
    assert ended.value.code == 0
    text = capsys.readouterr().out
    lines = _lines(text)
    assert list(lines) == [
        "ingest", "embed_images", "mine_concepts", "fit_probe", "build_index", "build_archives", "export_training"
    ]  # fmt: skip
    assert lines["ingest"][0] == "2"
    assert all(
        line[1] == "120" for line in lines.values()
    )  # six of them will be rejects, which no footer tells
    written = {
        job: sum(table_bytes(tables.read_manifest(str(curated.workspace), name)) for name in names)
        for job, names in BUILDS.items()
        if job in ("ingest", "embed_images", "build_archives", "export_training")
    }
    for job, size in written.items():
        assert _size(lines[job][3]) == pytest.approx(size * 120 / 114, rel=0.1), job
    assert "?" not in [cell for line in lines.values() for cell in line]
    assert "rates that are not known" not in text
    assert not (tmp_path / "new").exists()
    assert _files(curated.folder) == before


def test_times_are_those_of_the_rates(curated):
    rates = measured(str(curated.workspace)).rates
    assert set(rates) == set(BUILDS) - {"import_embeddings", "select_pairs", "find_duplicates"}
    pairs = tables.read_manifest(str(curated.workspace), "pairs")
    assert rates["ingest"] == pytest.approx(120 / sum(unit.seconds for unit in pairs.units))
    config = load_config(
        str(curated.folder / "config.yaml"),
        [f"workspace={curated.folder}/none", "plan.rates.ingest=0.01", "plan.slots=64"],
    )
    text = ingest.plan(config)
    assert _lines(text)["ingest"][5] == "1.7 h"  # 120 rows, and no more than two shards at once
    assert "time: 1.7 h with 64 slots (plan.slots)" in text


def test_what_is_done_and_what_stands_in_the_way_is_told(curated):
    lines = _lines(pipeline.plan(curated.config))
    assert {line[-1] for line in lines.values()} == {"complete"}
    assert {line[-2] for line in lines.values()} == {"0 s"}
    other = load_config(
        str(curated.folder / "config.yaml"),
        [f"workspace={curated.workspace}", "archives.top=5", "overwrite=[archives]"],
    )
    lines = _lines(pipeline.plan(other))
    assert lines["build_index"][-1] == "complete"
    assert lines["build_archives"][-1] == "to be replaced"
    assert lines["export_training"][-1].startswith("after the steps before")
    other.overwrite = False
    assert "needs overwrite=[archives]" in _lines(pipeline.plan(other))["build_archives"][-1]
    assert "archives.top" not in _lines(export_training.plan(other))["export_training"][-1]


def test_a_table_that_was_begun(curated, tmp_path):
    manifest = tables.read_manifest(str(curated.workspace), "pairs")
    config = dataclasses.replace(curated.config, workspace=str(tmp_path))
    begun = dataclasses.replace(manifest, workspace=str(tmp_path), status="partial", units=[])
    tables.commit_wave(begun, "run", manifest.units[:1])
    assert _lines(ingest.plan(config))["ingest"][-1] == "1 of 2 units are done"
    assert measured(str(tmp_path)).rates["ingest"] > 0


@pytest.mark.slow
def test_the_first_pairs_are_the_first_of_all(spark, curated):
    config = load_config(str(curated.folder / "config.yaml"), [f"workspace={curated.workspace}", "limit=70"])
    assert config.workspace == f"{curated.workspace}-first-70"
    assert _lines(ingest.plan(config))["ingest"][:2] == ("1", "70")
    manifest = ingest.run(spark, config)
    whole = harness.table_rows(curated.workspace, "pairs")
    assert manifest.rows == 70
    found = tables.read_parts(manifest)
    assert found.select(["key", "caption", "image"]).equals(
        whole.slice(0, 70).select(["key", "caption", "image"])
    )
    assert [part.name for part in manifest.parts] == [
        "web/00000-00000", "web/00000-00001", "web/00000-00002", "web/00001-00000"
    ]  # fmt: skip
    # (Rejects are counted a part at a time: number 73 lies in the part that was begun.)
    assert manifest.rejects == {"missing_image": 2, "truncated_image": 1, "unreadable_image": 1}
