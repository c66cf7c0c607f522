"""What all job entries share: arguments, help, configuration, session."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from configs.arguments import parse_config
from configs.errors import UserError, run_entry
from configs.overwrite import TABLES, check_overwrite
from configs.schema import CocuConfig
from storage.addresses import resolve
from storage.credentials import without_credentials

__all__ = ["check_workspace", "job_entry", "parse_arguments"]


_BUILDS = {
    "ingest": ("pairs",),
    "embed_images": ("image_embeddings",),
    "import_embeddings": ("pairs", "image_embeddings"),
    "mine_concepts": ("concepts", "pair_concepts"),
    "build_index": ("index",),
    "fit_probe": ("probe",),
    "build_archives": ("archives",),
    "export_training": ("training_set",),
}


def parse_arguments(argv: Sequence[str], job: str, text: str, sections: Sequence[str]) -> CocuConfig:
    """The configuration from ``--config FILE key=value ...``; ``--help`` shows the job's options.

    Raises:
        UserError: a wrong option; ``overwrite`` names a table that another job builds.
    """
    config = parse_config(argv, f"spark-submit spark_jobs/{job}.py", text, [*sections, "spark"])
    check_overwrite(config.overwrite, job, _BUILDS.get(job, TABLES))
    return config


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
) -> None:
    """Run a job as a process: parse, check everything that can be known now, start Spark, work."""

    def main(argv: list[str]) -> int:
        config = parse_arguments(argv, job, text, sections)
        check_workspace(config)
        check(config)
        from spark_jobs.engine.session import open_session
        from spark_jobs.engine.task_errors import as_user_errors

        session = open_session(config)
        try:
            with as_user_errors():
                run(session, config)
        finally:
            session.stop()
        return 0

    run_entry(main, sys.argv[1:])
