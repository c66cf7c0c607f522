"""What all job entries share: arguments, help, configuration, session."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from configs.arguments import parse_command
from configs.errors import UserError, run_entry
from configs.overwrite import TABLES, check_overwrite
from configs.schema import CocuConfig
from storage.addresses import resolve
from storage.credentials import without_credentials

__all__ = ["check_workspace", "job_entry", "next_command", "parse_arguments"]


_BUILDS = {
    "ingest": ("pairs",),
    "embed_images": ("image_embeddings",),
    "find_duplicates": ("duplicates",),
    "select_pairs": ("selection",),
    "import_embeddings": ("pairs", "image_embeddings"),
    "mine_concepts": ("concepts", "pair_concepts"),
    "build_index": ("index",),
    "fit_probe": ("probe",),
    "build_archives": ("archives",),
    "export_training": ("training_set",),
}


_THEN = {
    "ingest": "embed_images",
    "embed_images": "mine_concepts",
    "find_duplicates": "select_pairs",
    "select_pairs": "mine_concepts",
    "import_embeddings": "mine_concepts",
    "mine_concepts": "fit_probe",
    "fit_probe": "build_index",
    "build_index": "build_archives",
    "build_archives": "export_training",
    "export_training": "train",
    "pipeline": "train",
}
# The last ones may hold credentials, and logs are read by others.
_NOT_REPEATED = ("overwrite=", "verify=", "plan.", "spark.conf")
_PLAN = "say what would be done, how long it would take and what room it needs, and start nothing"


def parse_arguments(argv: Sequence[str], job: str, text: str, sections: Sequence[str]) -> CocuConfig:
    """The configuration from ``--config FILE key=value ...``; ``--help`` shows the job's options.

    Raises:
        UserError: a wrong option; ``overwrite`` names a table that another job builds.
    """
    return _parse(argv, job, text, sections, {})[0]


def _parse(
    argv: Sequence[str], job: str, text: str, sections: Sequence[str], flags: Mapping[str, str]
) -> tuple[CocuConfig, set[str]]:
    prog = f"spark-submit spark_jobs/{job}.py"
    config, given = parse_command(
        argv, prog, text, [*sections, "plan", "spark"] if flags else [*sections, "spark"], flags
    )
    check_overwrite(config.overwrite, job, _BUILDS.get(job, TABLES))
    return config, given


def check_workspace(config: CocuConfig, create: bool = True) -> None:
    """Find an unusable workspace at start-up.

    Args:
        config: its ``workspace`` is made absolute.
        create: make the folder; what only reads tables leaves that.

    Raises:
        UserError: ``workspace`` is missing or cannot be created.
    """
    if not config.workspace:
        raise UserError(
            "workspace is not set: the folder of all tables, e.g. workspace=workspace/demo or s3a://bucket/cocu"
        )
    if "://" not in config.workspace:
        config.workspace = str(Path(config.workspace).resolve())  # tasks may run in another directory
    if not create:
        return
    filesystem, path = resolve(config.workspace)
    try:
        filesystem.create_dir(path, recursive=True)
    except OSError as error:
        raise UserError(
            f"workspace={config.workspace}: cannot create this folder: {error}{without_credentials(config.workspace)}"
        ) from None


def job_entry(
    job: str,
    text: str,
    sections: Sequence[str],
    check: Callable[[CocuConfig], None],
    run: Callable[[SparkSession, CocuConfig], Any],
    plan: Callable[[CocuConfig], str],
) -> None:
    """Run a job as a process: parse, check everything that can be known now, start Spark, work, say what comes next.

    With ``--plan`` the text that ``plan`` gives is printed instead, and nothing is started or written.
    """

    def main(argv: list[str]) -> int:
        config, given = _parse(argv, job, text, sections, {"plan": _PLAN})
        check_workspace(config, create="plan" not in given)
        check(config)
        if "plan" in given:
            print(plan(config), flush=True)
            return 0
        from spark_jobs.engine.session import open_session
        from spark_jobs.engine.task_errors import as_user_errors

        session = open_session(config)
        try:
            with as_user_errors():
                run(session, config)
        finally:
            session.stop()
        if following := next_command(job, config, argv):
            print(f"{job}: next: {following}", flush=True)
        return 0

    run_entry(main, sys.argv[1:])


def next_command(job: str, config: CocuConfig, argv: Sequence[str]) -> str:
    """What to run after a job, with the same configuration; empty where nothing follows."""
    following = _THEN.get(job, "")
    if job == "embed_images" and config.filters.active:
        following = "find_duplicates" if config.filters.one_of_each else "select_pairs"
    if job == "find_duplicates" and not config.filters.one_of_each:
        argv = [*argv, "filters.duplicates=one"]
    if following == "fit_probe" and config.archives.ranking != "calibrated":
        following = "build_index"
    imported = any(corpus.format == "embeddings" for corpus in config.corpora)
    if imported and following in ("export_training", "train"):
        following = "report" if job == "build_archives" else ""
    if not following:
        return ""
    command = ["python", "-m", "training.train"]
    if following != "train":
        command = ["spark-submit", f"spark_jobs/{following}.py"]
    kept = [word for word in argv if not word.startswith(_NOT_REPEATED)]
    return shlex.join([*command, *kept])
