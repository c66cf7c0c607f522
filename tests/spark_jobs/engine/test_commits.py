from __future__ import annotations

import re

import pyarrow as pa
import pytest

from configs.errors import UserError
from configs.schema import CocuConfig, SparkConfig
from spark_jobs.engine.commits import build_table
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.task_errors import translated
from spark_jobs.engine.waves import attempt_name, map_units
from storage import tables
from storage.units import Part, Unit, UnitRecord

SCHEMA = pa.schema([("key", pa.string())])


def write_rows(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    attempt = attempt_name()
    if unit.payload == "fails once" and not _seen(folder):
        raise RuntimeError("a task that fails the first time")
    if unit.payload == "mistake":
        raise UserError("clip.pretrained=x on executor e is another file; put the same one on every host")
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
    return [Unit(f"demo/{n:05d}", n + 1, payloads.get(f"u{n}")) for n in range(count)]


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
    assert 2 <= len(done) < 9
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    build_table(spark, _config(tmp_path), job)
    assert f"goes on; {len(done)} of 9 units are done" in capfd.readouterr().out
    assert _keys(tmp_path) == EXPECTED
    named = {str(file) for file in tables.read_manifest(str(tmp_path), "pairs").files}
    for record in progress.units:
        file = tmp_path / "pairs" / record.parts[0].file
        assert str(file) in named
        assert file.stat().st_mtime_ns == kept[file]


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
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "pairs" / "failed").exists()
    assert _keys(tmp_path) == EXPECTED
    assert len(list(tmp_path.rglob("*.parquet"))) == 9


def test_other_settings_are_refused_by_name_and_replaced_on_demand(spark, tmp_path):
    build_table(spark, _config(tmp_path), _job(_units(3)))
    other = _job(_units(2), settings={"a": 2})
    with pytest.raises(UserError, match=r"a was 1 and is now 2; say overwrite=true"):
        build_table(spark, _config(tmp_path), other)
    assert len(_keys(tmp_path)) == 6
    build_table(spark, _config(tmp_path, overwrite=True), other)
    assert _keys(tmp_path) == EXPECTED[:3]
    assert len(list(tmp_path.rglob("*.parquet"))) == 2


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
