from __future__ import annotations

import os
import re
import shutil
import signal
from dataclasses import replace

import pyarrow as pa
import pytest

from configs.errors import UserError
from configs.schema import CocuConfig, SparkConfig
from spark_jobs.engine.commits import build_table
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.task_errors import translated
from spark_jobs.engine.units import units_of
from spark_jobs.engine.waves import attempt_name, map_units, units_per_task
from storage import tables
from storage.units import Part, Unit, UnitRecord

SCHEMA = pa.schema([("key", pa.string())])


def write_rows(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    attempt = attempt_name()
    if unit.payload == "fails once" and not _seen(folder):
        raise RuntimeError("a task that fails the first time")
    if unit.payload == "mistake":
        raise UserError("clip.pretrained=x on executor e is another file; put the same one on every host")
    if unit.payload == "bug":
        raise ZeroDivisionError("a mistake in the code")
    if unit.payload == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    file = tables.part_path(recipe, unit.name, attempt)
    rows = pa.table({"key": [f"{unit.name}/{n}" for n in range(unit.rows)]}, schema=SCHEMA)
    return UnitRecord(
        unit.name, (Part(unit.name, file, tables.write_part(folder, file, rows, SCHEMA)),), rows_in=unit.rows
    )


def _seen(folder: str) -> bool:
    """False the first time it is asked; a file remembers over processes."""
    from pathlib import Path

    mark = Path(folder) / "failed"
    if mark.exists():
        return True
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text("")
    return False


def _job(units, **changes):
    values = {
        "job": "ingest",
        "table": "pairs",
        "settings": {"a": 1},
        "inputs": {},
        "units": units,
        "task": write_rows,
    }
    return TableJob(**{**values, **changes})


def _config(folder, **changes):
    return CocuConfig(workspace=str(folder), spark=SparkConfig(units_per_wave=4), **changes)


def _units(count, **payloads):
    return [Unit(f"demo/{n:05d}", n + 1, payloads.get(f"u{n}"), f"/shards/{n}.tar") for n in range(count)]


def _keys(folder):
    return tables.read_parts(tables.read_manifest(str(folder), "pairs")).column("key").to_pylist()


def test_no_two_attempts_write_to_one_file(spark):
    """Of one application by Spark's number, of two by chance: a killed driver's tasks may still be at work."""
    names = map_units(spark, _units(4), lambda _: attempt_name())
    assert len({name.partition(b"-")[0] for name in names}) == 4
    assert attempt_name().partition("-")[0] == attempt_name().partition("-")[0] == "0"
    assert attempt_name() != attempt_name()


EXPECTED = [f"demo/{n:05d}/{row}" for n in range(9) for row in range(n + 1)]


def test_rows_come_out_whole_and_in_the_order_of_the_units(spark, tmp_path, capfd):
    manifest = build_table(spark, _config(tmp_path), _job(_units(9)))
    assert _keys(tmp_path) == EXPECTED
    assert manifest.rows_in == manifest.rows == 45
    assert "45 pairs in, 45 out, 0 rejected" in capfd.readouterr().out


def test_a_second_run_does_nothing(spark, tmp_path, capfd):
    build_table(spark, _config(tmp_path), _job(_units(9)))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}

    def never():
        raise AssertionError("units were looked for although there is nothing to do")

    build_table(spark, _config(tmp_path), _job(never))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == before
    assert "nothing to do" in capfd.readouterr().out


def test_a_failed_run_keeps_its_waves_and_the_next_goes_on(spark, tmp_path, capfd):
    with pytest.raises(UserError, match=r"another file; put the same one on every host$"):
        build_table(spark, _config(tmp_path), _job(_units(9, u8="mistake")))
    job = _job(_units(9))
    progress = tables.read_progress(str(tmp_path), "pairs", job.recipe)
    assert progress is not None
    done = {record.unit for record in progress.units}
    assert done == {f"demo/{n:05d}" for n in range(8)}, "one bad unit costs no other, whatever its wave"
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    build_table(spark, _config(tmp_path), job)
    assert f"goes on; {len(done)} of 9 units are done" in capfd.readouterr().out
    assert _keys(tmp_path) == EXPECTED
    named = {str(file) for file in tables.read_manifest(str(tmp_path), "pairs").files}
    for record in progress.units:
        file = tmp_path / "pairs" / record.parts[0].file
        assert str(file) in named
        assert file.stat().st_mtime_ns == kept[file]


def _done(folder, job):
    progress = tables.read_progress(str(folder), "pairs", job.recipe)
    return [record.unit for record in progress.units]


def test_the_message_names_unit_file_and_reason(spark, tmp_path, capfd):
    job = _job(_units(9, u2="mistake", u5="bug"))
    with pytest.raises(UserError) as caught:
        build_table(spark, _config(tmp_path), job)
    text = str(caught.value)
    assert "2 of 9 units of 'pairs' failed and it stays incomplete (7 are kept)" in text
    assert "spark.max_failed_units=2" in text
    assert "demo/00002 (/shards/2.tar): clip.pretrained=x" in text
    assert "demo/00005 (/shards/5.tar): ZeroDivisionError: a mistake in the code" in text
    assert sorted(_done(tmp_path, job)) == [f"demo/{n:05d}" for n in range(9) if n not in (2, 5)]
    # A bug shows its trace; what the user can mend does not.
    traces = capfd.readouterr().err.split("Traceback")[1:]
    assert len(traces) == 1
    assert "in write_rows" in traces[0]


def test_a_table_may_do_without_some_units_and_counts_their_rows(spark, tmp_path):
    config = _config(tmp_path)
    config.spark.max_failed_units = 1
    manifest = build_table(spark, config, _job(_units(9, u4="bug")))
    assert (manifest.rows_in, manifest.rows, manifest.rejects) == (45, 40, {"unit_failed": 5})
    assert _keys(tmp_path) == [key for key in EXPECTED if not key.startswith("demo/00004")]
    again = tables.read_manifest(str(tmp_path), "pairs")
    assert [record.extra["failed"] for record in again.units if not record.parts] == [
        {"source": "/shards/4.tar", "reason": "ZeroDivisionError: a mistake in the code"}
    ]
    # The units of later tables leave out what one of their inputs lost.
    whole = build_table(spark, _config(tmp_path / "whole"), _job(_units(9)))
    assert [unit.name for unit in units_of(whole, [again])] == [f"demo/{n:05d}" for n in range(9) if n != 4]


def test_a_table_that_must_be_whole_stays_incomplete(spark, tmp_path):
    config = _config(tmp_path)
    config.spark.max_failed_units = 5
    with pytest.raises(UserError, match="1 of 2 units"):
        build_table(spark, config, _job(_units(2, u1="mistake"), whole=True))


def test_a_unit_that_kills_its_worker_kills_no_other(spark, tmp_path):
    job = _job(_units(6, u1="crash"))
    with pytest.raises(UserError, match=r"demo/00001 \(/shards/1.tar\): the process that worked on it died"):
        build_table(spark, _config(tmp_path), job)
    assert sorted(_done(tmp_path, job)) == [f"demo/{n:05d}" for n in range(6) if n != 1]


def test_where_nothing_works_the_rest_is_not_tried(spark, tmp_path):
    units = [replace(unit, payload="mistake") for unit in _units(40)]
    with pytest.raises(UserError, match=r"units of 'pairs' failed.*another file") as caught:
        build_table(spark, _config(tmp_path), _job(units))
    assert int(re.search(r"(\d+) of 40 units", str(caught.value))[1]) <= 4
    assert "max_failed_units" not in str(caught.value), "going without all of them is no way out"


def test_small_units_share_tasks_and_eight_tasks_a_slot_are_left():
    units = [Unit(str(n), 2500) for n in range(1000)]
    assert units_per_task(0, units, 2) == 1
    assert units_per_task(25_000, units, 2) == 10
    assert units_per_task(25_000, units, 64) == 1
    assert units_per_task(100_000, units, 4) == 31
    assert units_per_task(25_000, [Unit("shard", 0)], 2) == 1


def test_units_that_share_a_task_give_what_each_gives_alone(spark):
    from pyspark import TaskContext

    answers = map_units(
        spark, _units(10), lambda unit: f"{unit.name} {TaskContext.get().partitionId()}", None, 4
    )
    names, tasks = zip(*(answer.decode().split() for answer in answers), strict=True)
    assert list(names) == [f"demo/{n:05d}" for n in range(10)]
    assert len(set(tasks)) == 3


def test_a_task_that_is_tried_again_leaves_one_copy_of_its_rows(tmp_path):
    """local[2,3] allows a task three attempts, which plain local mode does not."""
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from configs.schema import CocuConfig, SparkConfig\n"
        "from spark_jobs.engine.session import open_session\n"
        "from spark_jobs.engine.commits import build_table\n"
        "from tests.spark_jobs.engine.test_commits import _job, _units\n"
        "config = CocuConfig(workspace=sys.argv[1], spark=SparkConfig(master='local[2,3]', units_per_wave=4))\n"
        "build_table(open_session(config), config, _job(_units(9, u5='fails once')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "pairs" / "failed").exists()
    assert _keys(tmp_path) == EXPECTED
    assert len(list(tmp_path.rglob("*.parquet"))) == 9


def test_other_settings_are_refused_by_name_and_replaced_on_demand(spark, tmp_path):
    build_table(spark, _config(tmp_path), _job(_units(3)))
    other = _job(_units(2), settings={"a": 2})
    with pytest.raises(UserError, match=r"a was 1 and is now 2; say overwrite=\[pairs\]"):
        build_table(spark, _config(tmp_path), other)
    assert len(_keys(tmp_path)) == 6
    build_table(spark, _config(tmp_path, overwrite=True), other)
    assert _keys(tmp_path) == EXPECTED[:3]
    assert len(list(tmp_path.rglob("*.parquet"))) == 2


def test_a_named_table_is_built_again_though_it_is_the_right_one_and_no_other_is(spark, tmp_path):
    first = build_table(spark, _config(tmp_path), _job(_units(3)))
    again = build_table(spark, _config(tmp_path, overwrite=["pairs"]), _job(_units(3)))
    assert _keys(tmp_path) == EXPECTED[:6]
    assert not set(first.files) & set(again.files)
    assert len(list(tmp_path.rglob("*.parquet"))) == 3
    # Named is another one: this one is neither built again nor replaced.
    others = _config(tmp_path, overwrite=["archives"])
    assert build_table(spark, others, _job(_units(3))).files == again.files
    with pytest.raises(UserError, match="a was 1 and is now 2"):
        build_table(spark, others, _job(_units(3), settings={"a": 2}))


def test_what_is_lost_or_damaged_is_found_and_done_again_alone(spark, tmp_path, capfd):
    def damage(file, how):
        data = file.read_bytes()
        if how == "gone":
            file.unlink()
        else:
            file.write_bytes({"cut": data[:-20], "flipped": data[:10] + b"\xff" * 30 + data[40:]}[how])

    manifest = build_table(spark, _config(tmp_path), _job(_units(9)))
    files = [tmp_path / "pairs" / part.file for part in manifest.parts]
    build_table(spark, _config(tmp_path, verify=True), _job(_units(9)))
    assert "verified 9 files: all are there and whole" in capfd.readouterr().out
    for number, how in ((1, "gone"), (4, "cut"), (8, "flipped")):
        damage(files[number], how)
    # Whole, and another table's: as many rows as the manifest says are expected.
    shutil.copy(files[0], files[2])
    repaired = build_table(spark, _config(tmp_path, verify=True), _job(_units(9)))
    out = capfd.readouterr().out
    assert "4 of 9 units are done again" in out
    for text in ("is gone", "not a whole Parquet file", "holds 1 rows and the manifest says 3"):
        assert text in out
    assert _keys(tmp_path) == EXPECTED
    kept = {part.file for part in manifest.parts} & {part.file for part in repaired.parts}
    assert kept == {manifest.parts[number].file for number in (0, 3, 5, 6, 7)}
    assert "nothing" not in out


def test_verifying_tries_failed_units_again(spark, tmp_path):
    config = _config(tmp_path)
    config.spark.max_failed_units = 1
    build_table(spark, config, _job(_units(3, u1="bug")))
    build_table(spark, _config(tmp_path, verify=True), _job(_units(3)))
    assert _keys(tmp_path) == EXPECTED[:6]
    assert tables.read_manifest(str(tmp_path), "pairs").rejects == {}


def test_while_a_table_is_replaced_the_old_one_stays_readable(spark, tmp_path):
    build_table(spark, _config(tmp_path), _job(_units(3)))
    with pytest.raises(UserError):
        build_table(
            spark, _config(tmp_path, overwrite=True), _job(_units(9, u8="mistake"), settings={"a": 2})
        )
    assert _keys(tmp_path) == EXPECTED[:6]


def test_results_of_mapped_units_keep_their_order(spark):
    units = [Unit(str(n), 0) for n in range(11)]
    assert map_units(spark, units, lambda unit: f"<{unit.name}>") == [f"<{n}>".encode() for n in range(11)]


def test_credentials_in_spark_properties_stay_out_of_the_manifest(spark, tmp_path):
    config = _config(tmp_path)
    config.spark.conf = {"spark.hadoop.fs.s3a.secret.key": "hush-hush"}
    build_table(spark, config, _job(_units(2)))
    text = (tmp_path / "pairs" / "_manifest.json").read_text()
    assert "hush-hush" not in text
    assert "spark.hadoop.fs.s3a.secret.key" in text


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        (
            "configs.errors.UserError: clip.pretrained is another file; put it there",
            "clip.pretrained is another",
        ),
        ("OSError: [Errno 28] Error writing bytes. Detail: No space left on device", "free space"),
        ("OSError: [Errno 30] Failed to open. Detail: Read-only file system", "mend the rights"),
        ("PermissionError: [Errno 13] Failed to open", "mend the rights"),
        ("Caused by: java.io.IOException: No space left on device", "spark.local.dir"),
        ("ModuleNotFoundError: No module named 'curation'", "no Python module 'curation'.*--py-files"),
        ('Cannot run program "./environment/bin/python": error=2', "cannot start ./environment/bin/python"),
    ],
)
def test_what_ends_a_spark_job_becomes_one_sentence(cause, text):
    error = translated(RuntimeError(f"Job aborted due to stage failure\n{cause}\n\tat org.apache.spark"))
    assert isinstance(error, UserError)
    assert "\n" not in str(error)
    assert re.search(text, str(error))


def test_a_bug_stays_a_bug():
    error = RuntimeError("ZeroDivisionError: division by zero")
    assert translated(error) is error
