"""The command line that all entries share."""

from __future__ import annotations

import configparser
import itertools
from pathlib import Path

import pytest

from configs.arguments import parse_command, split_words
from configs.version import VERSION
from spark_jobs.engine.entry import next_command


def test_words_in_any_order():
    words = ["-c", "configs/demo.yaml", "workspace=/a", "archives.top=7", "--plan"]
    groups = [words[:2], words[2:3], words[3:4], words[4:]]
    for order in itertools.permutations(groups):
        argv = list(itertools.chain(*order))
        config, given = parse_command(argv, "prog", "text", ["archives"], {"plan": "say"})
        assert (config.workspace, config.archives.top, given) == ("/a", 7, {"plan"}), argv


def test_names_and_overrides_may_stand_in_any_order():
    words = ["workspace=/a", "web/0/a=b", "archives.top=3", "archives"]
    assert split_words(words) == (["web/0/a=b", "archives"], ["workspace=/a", "archives.top=3"])


def test_the_version_is_the_packages(capsys):
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    assert setup["metadata"]["version"] == VERSION
    with pytest.raises(SystemExit) as ended:
        parse_command(["--version"], "prog", "text", [], {})
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"cocu-spark {VERSION}\n"


def test_a_limited_run_has_a_workspace_of_its_own():
    config, _ = parse_command(["workspace=s3a://b/ws/", "limit=50"], "prog", "text", [], {})
    assert config.workspace == "s3a://b/ws-first-50"


NEXT = {
    ("ingest", "calibrated"): "spark-submit spark_jobs/embed_images.py",
    ("mine_concepts", "calibrated"): "spark-submit spark_jobs/fit_probe.py",
    ("mine_concepts", "paper"): "spark-submit spark_jobs/build_index.py",
    ("build_archives", "paper"): "spark-submit spark_jobs/export_training.py",
    ("export_training", "paper"): "python -m training.train",
    ("report", "paper"): "",
}


@pytest.mark.parametrize("case", NEXT)
def test_what_comes_next(case):
    job, ranking = case
    argv = [
        "--config",
        "configs/demo.yaml",
        "workspace=/my data",
        "overwrite=true",
        "spark.conf={spark.hadoop.fs.s3a.secret.key: hidden}",
        f"archives.ranking={ranking}",
    ]
    config, _ = parse_command(argv, "prog", "text", [], {})
    rest = f" --config configs/demo.yaml 'workspace=/my data' archives.ranking={ranking}"
    assert next_command(job, config, argv) == (NEXT[case] + rest if NEXT[case] else "")


def test_imported_embeddings_are_not_trained_on():
    corpus = "corpora=[{name: a, format: embeddings, path: x}]"
    config, _ = parse_command([corpus], "prog", "text", [], {})
    assert "report.py" in next_command("build_archives", config, [corpus])
    assert next_command("pipeline", config, [corpus]) == ""
