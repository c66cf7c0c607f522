from __future__ import annotations

import sys
from pathlib import Path

import pytest

from configs.errors import UserError
from spark_jobs.engine.session import chosen_master
from tests import harness


@pytest.mark.parametrize(
    ("wanted", "given", "expected"),
    [
        ("", None, "local[*]"),
        ("spark://host:7077", None, "spark://host:7077"),
        ("", "local[*]", None),
        ("", "yarn", None),
        ("spark://host:7077", "local[*]", "spark://host:7077"),
        ("local[3]", "local[*]", "local[3]"),
        ("local[3]", "spark://host:7077", None),
        ("yarn", "yarn", None),
    ],
)
def test_the_configurations_master_counts_unless_spark_submit_was_told_one(wanted, given, expected):
    assert chosen_master(wanted, given) == expected


@pytest.mark.parametrize("wanted", ["yarn", "k8s://https://host:6443"])
def test_masters_that_spark_submit_must_know_are_not_run_on_one_machine(wanted):
    with pytest.raises(UserError, match=rf"spark.master={wanted}: give it to spark-submit itself"):
        chosen_master(wanted, "local[*]")


def test_a_master_that_is_not_used_is_told(capsys):
    chosen_master("local[2]", "yarn")
    assert "spark.master=local[2] is not used: spark-submit was given yarn" in capsys.readouterr().err


@pytest.mark.slow
def test_spark_submit_without_a_master_runs_on_the_configurations(tmp_path):
    script = tmp_path / "say.py"
    script.write_text(
        "from configs.loading import load_config\n"
        "from spark_jobs.engine.session import open_session\n"
        "session = open_session(load_config(None, ['spark.master=local[3]']))\n"
        "print('master', session.sparkContext.master, session.sparkContext.defaultParallelism)\n"
    )
    program = str(Path(sys.executable).parent / "spark-submit")
    done = harness.run(
        [program, "--driver-memory", "1g", "--conf", "spark.ui.enabled=false", str(script)],
        timeout=800,
        PYTHONPATH=str(harness.ROOT),
    )
    assert "master local[3] 3" in done.stdout
