"""Readers: the rows asked for, in order, whatever Petastorm's threads do; nothing that runs code."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from tests.harness.installed import installed, need, needs
from tests.training.synthetic import write_training_set
from training.feed.plan import EpochPlan
from training.feed.readers import READERS as NAMES
from training.feed.readers import chosen, read_groups
from training.feed.stream import rank_tables
from training.feed.training_set import RowGroup, TrainingSet, open_training_set

READERS = [pytest.param(name, marks=needs("petastorm") if name == "petastorm" else ()) for name in NAMES]
FILES = [50, 70, 33, 1]  # row groups of 16 do not divide any of them


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    workspace = tmp_path_factory.mktemp("training-set")
    write_training_set(workspace, FILES, group_rows=16)
    return open_training_set(str(workspace))


def keys_of(tables: object) -> list[str]:
    return [key for table in tables for key in table.column("key").to_pylist()]


@pytest.mark.parametrize("reader", READERS)
def test_row_groups_come_whole_and_in_order(data: TrainingSet, reader: str) -> None:
    order = random.Random(0).sample(data.groups, len(data.groups))
    expected = [pq.ParquetFile(group.file).read_row_group(group.number) for group in order]
    found = list(read_groups(reader, order, data.columns))
    assert all(one.equals(other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_row_once_an_epoch_over_all_ranks(data: TrainingSet, reader: str, size: int) -> None:
    plan = EpochPlan(data.group_rows, 0, 4, size, 8, 3)
    found: Counter = Counter()
    for rank in range(size):
        tables = list(rank_tables(data, plan, rank, reader))
        assert [table.num_rows for table in tables] == plan.counts[:, rank].tolist()
        found.update(keys_of(tables))
    assert len(found) == sum(FILES)
    assert set(found.values()) == {1}


@pytest.mark.parametrize("reader", READERS)
def test_going_on_in_the_middle_gives_the_rest(data: TrainingSet, reader: str) -> None:
    plan = EpochPlan(data.group_rows, 0, 0, 2, 8, 3)
    whole = [table.column("key").to_pylist() for table in rank_tables(data, plan, 1, "arrow")]
    for skip in (0, 1, 5, len(whole) - 1):
        rest = [table.column("key").to_pylist() for table in rank_tables(data, plan, 1, reader, skip)]
        assert rest == whole[skip:]


@needs("petastorm")
def test_petastorm_ending_too_early_loses_nothing(data: TrainingSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pool can see "all handed out" before the first item was: here it does so before every single result."""
    from petastorm.workers_pool import EmptyResultError
    from petastorm.workers_pool.thread_pool import ThreadPool

    genuine, calls = ThreadPool.get_results, []

    def hasty(self: ThreadPool) -> object:
        calls.append(1)
        if len(calls) % 2:
            raise EmptyResultError
        return genuine(self)

    monkeypatch.setattr(ThreadPool, "get_results", hasty)
    assert len(keys_of(read_groups("petastorm", data.groups))) == sum(FILES)
    assert len(calls) >= 2 * len(data.groups)


@needs("petastorm")
def test_petastorms_race_loses_nothing(data: TrainingSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race of Petastorm 0.13.1 as its own code has it, forced into its worst order every time.

    Its pool finds both counters at 0, then the ventilator hands out all row groups (few enough not to wait for a
    reader), then the pool asks whether the ventilator is done: it is, and the epoch seems to be over.
    """
    from petastorm.workers_pool import EmptyResultError
    from petastorm.workers_pool.thread_pool import ThreadPool
    from petastorm.workers_pool.ventilator import ConcurrentVentilator

    consumer, asked, lost = threading.current_thread(), threading.Event(), []
    hand_out, is_done, results = (
        ConcurrentVentilator._ventilate,
        ConcurrentVentilator.completed,
        ThreadPool.get_results,
    )

    def wait_and_hand_out(self: ConcurrentVentilator) -> None:
        asked.wait(timeout=30)
        hand_out(self)

    def done_after_all(self: ConcurrentVentilator) -> bool:
        if threading.current_thread() is consumer and not asked.is_set():
            asked.set()
            self._ventilation_thread.join(timeout=30)
        return is_done(self)

    def watched(self: ThreadPool) -> object:
        try:
            return results(self)
        except EmptyResultError:
            lost.append(1)
            raise

    monkeypatch.setattr(ConcurrentVentilator, "_ventilate", wait_and_hand_out)
    monkeypatch.setattr(ConcurrentVentilator, "completed", done_after_all)
    monkeypatch.setattr(ThreadPool, "get_results", watched)
    few = data.groups[:4]
    assert len(keys_of(read_groups("petastorm", few, ["key"]))) == sum(group.rows for group in few)
    assert lost, "Petastorm did not end too early, so nothing was tested"


@pytest.mark.parametrize("reader", READERS)
def test_closing_early_leaves_no_threads(data: TrainingSet, reader: str) -> None:
    before = threading.active_count()
    tables = read_groups(reader, data.groups)
    next(tables)
    tables.close()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and threading.active_count() > before:
            thread.join(timeout=5)
    assert threading.active_count() <= before


@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_row_group_is_named(tmp_path: Path, reader: str) -> None:
    write_training_set(tmp_path, [40], group_rows=16)
    damaged = open_training_set(str(tmp_path))
    file = Path(damaged.groups[0].file)
    content = bytearray(file.read_bytes())
    start = (
        pq.read_metadata(file).row_group(1).column(0).file_offset
        or pq.read_metadata(file).row_group(1).column(0).data_page_offset
    )
    content[start - 60 : start + 200] = b"\x00" * 260
    file.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"row group [012]: cannot be read.*verify=true"):
        list(read_groups(reader, damaged.groups))


def test_opening_checks_files_against_the_manifest(tmp_path: Path) -> None:
    write_training_set(tmp_path, [20, 20], group_rows=16)
    files = sorted(tmp_path.rglob("*.parquet"))
    files[0].unlink()
    with pytest.raises(UserError, match="it is gone"):
        open_training_set(str(tmp_path))
    files[0].write_bytes(files[1].read_bytes()[:-20])
    with pytest.raises(UserError, match="not a whole Parquet file"):
        open_training_set(str(tmp_path))
    pq.write_table(pq.ParquetFile(files[1]).read().slice(0, 7), files[0])
    with pytest.raises(UserError, match="hold 27 rows and its manifest says 40"):
        open_training_set(str(tmp_path))
    pq.write_table(pq.ParquetFile(files[1]).read().drop_columns(["caption"]), files[0])
    with pytest.raises(UserError, match="lacks the columns caption"):
        open_training_set(str(tmp_path))


def test_a_missing_table_names_the_job_that_builds_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the job export_training first"):
        open_training_set(str(tmp_path))


def test_a_pickled_petastorm_schema_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    write_training_set(tmp_path, [20], group_rows=16)
    marker = tmp_path / "ran"
    # A pickle of eval("open(...)"): what Petastorm's own unpickler lets through, as it admits all of builtins.
    code = f"open({str(marker)!r}, 'w')"
    pickled = b"cbuiltins\neval\n(V" + code.encode() + b"\ntR."
    schema = pq.read_schema(next(tmp_path.rglob("*.parquet")))
    poisoned = schema.with_metadata({b"dataset-toolkit.unischema.v1": pickled})
    pq.write_metadata(poisoned, tmp_path / "training_set" / "_common_metadata")
    with pytest.raises(UserError, match=r"_common_metadata: carries a pickled Petastorm schema"):
        open_training_set(str(tmp_path))
    assert not marker.exists()
    need("petastorm")
    # The crafted file is a real danger: Petastorm runs it when it is given the folder.
    from petastorm import make_batch_reader

    part_folder = next(tmp_path.rglob("*.parquet")).parent
    (part_folder / "_common_metadata").write_bytes(
        (tmp_path / "training_set" / "_common_metadata").read_bytes()
    )
    with contextlib.suppress(Exception):  # what it does after running the code does not matter
        make_batch_reader(f"file://{part_folder}").stop()
    assert marker.exists()
    marker.unlink()
    # Our reader takes the list of files, and reads on beside it.
    (tmp_path / "training_set" / "_common_metadata").unlink()
    assert len(keys_of(read_groups("petastorm", open_training_set(str(tmp_path)).groups))) == 20
    assert not marker.exists()


@needs("petastorm")
def test_an_address_that_petastorm_cannot_open_names_the_other_reader(data: TrainingSet) -> None:
    away = [RowGroup("s3a://bucket" + data.groups[0].file, 0, 16)]
    with pytest.raises(UserError, match=r"s3a://.*train\.reader=arrow"):
        next(read_groups("petastorm", away))


def test_auto_is_petastorm_where_it_is_installed(data: TrainingSet) -> None:
    assert chosen("auto") == ("petastorm" if installed("petastorm") else "arrow")
    assert keys_of(read_groups("auto", data.groups)) == keys_of(read_groups("arrow", data.groups))


def test_without_petastorm_auto_is_arrow_and_petastorm_is_refused(
    data: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "petastorm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "petastorm", None)  # Python's own way of saying: not to be had
    assert chosen("auto") == "arrow"
    assert len(keys_of(read_groups("auto", data.groups))) == sum(FILES)
    with pytest.raises(UserError, match=r"train\.reader=petastorm: .*extra 'train'.*train\.reader=arrow"):
        next(read_groups("petastorm", data.groups))
