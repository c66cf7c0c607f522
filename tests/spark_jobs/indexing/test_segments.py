"""An index that grows: segments and centres stay, rows keep the order of the table, and nothing is found less."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs.loading import load_config
from configs.schema import CocuConfig
from curation.index import open_index
from spark_jobs import build_archives, build_index
from spark_jobs.indexing import segments, training
from spark_jobs.indexing.segments import grouped
from storage import tables
from storage.growth import GROWN_FROM
from storage.units import Unit
from tests.curation.synthetic import Corpus, make_corpus
from tests.spark_jobs.workspaces import write_workspace

ROWS, PART = 2_000, 100
PARTS = ROWS // PART


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus(ROWS, concepts=60, noise=2.0)


def write_parts(workspace: Path, corpus: Corpus, parts: Sequence[int], grown: bool) -> None:
    """The tables with some of the parts, as they are after a run with other shards."""
    write_workspace(workspace, {"web": corpus}, PART)
    for name in ("image_embeddings", "pair_concepts"):
        manifest = tables.read_manifest(str(workspace), name)
        kept = [replace(record, made_of=f"of-{record.unit}") for record in manifest.units]
        manifest.units = [kept[part] for part in parts]
        if grown:
            manifest.extra[GROWN_FROM], manifest.recipe = [manifest.recipe], f"{manifest.recipe}-grown"
        tables.write_manifest(manifest)


def config_of(workspace: Path, *options: str) -> CocuConfig:
    base = [
        f"workspace={workspace}",
        f"corpora={json.dumps([{'name': 'web', 'path': 'unused'}])}",
        "archives.ranking=paper",
        "index.kind=ivf",
        "index.nlist=20",
    ]
    return load_config(None, [*base, *options])


def segments_in(workspace: Path) -> dict[str, tuple[int, int]]:
    """Path of each segment's vectors -> rows, and when it was written."""
    manifest = tables.read_manifest(str(workspace), "index")
    folder = workspace / "index" / manifest.extra["folder"]
    return {
        segment["vectors"]: (segment["rows"], (folder / segment["vectors"]).stat().st_mtime_ns)
        for segment in manifest.extra["index"]["segments"]
    }


@pytest.fixture
def small_segments(monkeypatch):
    monkeypatch.setattr(segments, "_LEAST_ROWS", 400)


def test_added_parts_are_segments_of_their_own_and_are_found_as_in_one_index(
    spark, corpus, tmp_path, monkeypatch, small_segments
):
    """Every list is visited, so that the truth is the exact index of all rows, ties by row included."""
    old = [part for part in range(PARTS) if part % 5 != 2]  # what is added lies between what is there
    write_parts(tmp_path / "ws", corpus, old, grown=False)
    config = config_of(tmp_path / "ws", "index.nprobe=20", "overwrite=true")
    build_index.run(spark, config)
    before = segments_in(tmp_path / "ws")
    assert sum(rows for rows, _ in before.values()) == len(old) * PART
    assert len(before) == 4
    write_parts(tmp_path / "ws", corpus, range(PARTS), grown=True)
    with monkeypatch.context() as patch:
        patch.setattr(training, "trained_on_sample", _forbidden)
        build_index.run(spark, config)
    after = segments_in(tmp_path / "ws")
    assert {path: after.get(path) for path in before} == before
    assert sum(rows for path, (rows, _) in after.items() if path not in before) == 4 * PART
    files = {path.name for path in (tmp_path / "ws" / "index" / "_parts" / "vectors").iterdir()}
    assert files == {Path(path).name for path in after}
    manifest = tables.read_manifest(str(tmp_path / "ws"), "index")
    index = open_index(tmp_path / "ws" / "index" / manifest.extra["folder"], check="full")
    assert index.keys.to_pylist() == [f"web/00000/{row:06d}" for row in range(ROWS)]
    stored = np.zeros_like(corpus.vectors)
    for segment in index.splits[0].lists.segments:
        stored[segment.rows] = segment.vectors
    assert np.array_equal(stored, corpus.vectors)
    assert index.captions.to_lists() == corpus.captions.to_lists()
    found = tables.read_parts(build_archives.run(spark, config))
    write_parts(tmp_path / "whole", corpus, range(PARTS), grown=False)
    flat = config_of(tmp_path / "whole", "index.kind=flat")
    build_index.run(spark, flat)
    assert found.equals(tables.read_parts(build_archives.run(spark, flat)))


def test_a_part_that_is_gone_costs_its_segment(spark, corpus, tmp_path, small_segments):
    write_parts(tmp_path, corpus, range(PARTS), grown=False)
    build_index.run(spark, config_of(tmp_path))
    before = segments_in(tmp_path)
    write_parts(tmp_path, corpus, [part for part in range(PARTS) if part != 5], grown=True)
    build_index.run(spark, config_of(tmp_path))
    after = segments_in(tmp_path)
    assert len(before.keys() & after.keys()) == len(before) - 1 == 4
    assert sum(rows for rows, _ in after.values()) == ROWS - PART


def test_an_index_that_more_than_doubled_is_trained_anew(spark, corpus, tmp_path, small_segments):
    write_parts(tmp_path, corpus, range(PARTS // 2 - 1), grown=False)
    build_index.run(spark, config_of(tmp_path))
    before = segments_in(tmp_path)
    trained = tables.read_manifest(str(tmp_path), "index").extra["index"]["trained_for"]
    write_parts(tmp_path, corpus, range(PARTS), grown=True)
    build_index.run(spark, config_of(tmp_path))
    assert not before.keys() & segments_in(tmp_path).keys()
    assert trained == ROWS / 2 - PART
    assert tables.read_manifest(str(tmp_path), "index").extra["index"]["trained_for"] == ROWS


def test_an_index_that_is_named_or_damaged_keeps_no_segment(spark, corpus, tmp_path, small_segments, capsys):
    write_parts(tmp_path, corpus, range(PARTS), grown=False)
    build_index.run(spark, config_of(tmp_path))
    before = segments_in(tmp_path)
    build_index.run(spark, config_of(tmp_path, "overwrite=[index]"))
    named = segments_in(tmp_path)
    assert not before.keys() & named.keys()
    file = tmp_path / "index" / "_parts" / next(iter(named)).removeprefix("../../")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    build_index.run(spark, config_of(tmp_path, "verify=true"))
    assert f"{file.name} is damaged; index is built again" in capsys.readouterr().out
    again = segments_in(tmp_path)
    assert not named.keys() & again.keys()
    assert len(again) == len(before)


def test_a_build_that_was_cut_short_writes_only_the_segments_that_it_lacks(
    spark, corpus, tmp_path, monkeypatch, small_segments
):
    write_parts(tmp_path, corpus, range(PARTS), grown=False)
    with monkeypatch.context() as patch:
        patch.setattr(build_index, "_join", _forbidden)
        with pytest.raises(KeyboardInterrupt):
            build_index.run(spark, config_of(tmp_path))
    folder = tmp_path / "index" / "_parts" / "vectors"
    written = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(written) == 5
    monkeypatch.setattr(training, "trained_on_sample", _forbidden)
    build_index.run(spark, config_of(tmp_path))
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    # Without its index the table of segments says what is there no more.
    (tmp_path / "index" / "_manifest.json").unlink()
    next(folder.iterdir()).unlink()
    monkeypatch.undo()
    monkeypatch.setattr(segments, "_LEAST_ROWS", 400)
    build_index.run(spark, config_of(tmp_path))
    assert sum(rows for rows, _ in segments_in(tmp_path).values()) == ROWS


def units_of(rows: Sequence[int], corpus: str = "web") -> list[Unit]:
    return [
        Unit(
            f"{corpus}/{number:05d}", count, (f"images {number}", f"captions {number}"), content=f"c{number}"
        )
        for number, count in enumerate(rows)
    ]


def members(groups: Sequence[Unit]) -> list[list[str]]:
    return [[name for name, *_ in group.payload] for group in groups]


def test_segments_stay_within_a_corpus_and_are_of_a_size():
    units = [*units_of([2500] * 100), *units_of([10], "mine")]
    groups = grouped(units)
    assert [group.rows for group in groups] == [100_000, 100_000, 50_000, 10]
    assert [name for group in members(groups) for name in group] == [unit.name for unit in units]
    assert {group.rows for group in grouped(units_of([100_000] * 270))} == {500_000}
    assert len({group.content for group in groups}) == 4


def test_what_stands_keeps_its_content_and_what_is_new_comes_apart():
    first = grouped(units_of([2500] * 90))
    more = units_of([2500] * 100)
    again = grouped([more[-1], *more[:-1]], members(first))
    assert [group.content for group in again[:-1]] == [group.content for group in first]
    assert sorted(members(again)[-1]) == [f"web/{number:05d}" for number in range(90, 100)]
    changed = [replace(more[0], content="other"), *more[1:90]]
    assert [group.content for group in grouped(changed, members(first))][1:] == [
        group.content for group in first
    ][1:]
    assert grouped(changed, members(first))[0].content != first[0].content


def test_many_small_segments_become_one():
    units = units_of([2500] * 60)
    standing = [[unit.name] for unit in units[40:]]
    assert len(grouped(units, [[unit.name for unit in units[:40]], *standing[:8]])) == 1 + 8 + 1
    merged = grouped(units, [[unit.name for unit in units[:40]], *standing])
    assert [group.rows for group in merged] == [100_000, 50_000]


def _forbidden(*_arguments):
    raise KeyboardInterrupt
