"""What all job entries share: arguments, help, configuration, session."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from configs.errors import UserError, run_entry
from configs.loading import describe_options, load_config
from configs.schema import CocuConfig
from spark_jobs.addresses import resolve

__all__ = ["check_workspace", "job_entry", "parse_arguments"]


def parse_arguments(argv: Sequence[str], job: str, text: str, sections: Sequence[str]) -> CocuConfig:
    """The configuration from ``--config FILE key=value ...``; ``--help`` shows the job's options."""
    parser = argparse.ArgumentParser(
        prog=f"spark-submit spark_jobs/{job}.py",
        description=text,
        epilog="options of this job (in the file, or as key=value):\n"
        + describe_options("", *sections, "spark"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file with the configuration, e.g. configs/demo.yaml"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options that win over the file")
    arguments = parser.parse_args(list(argv))
    if not arguments.config and not arguments.overrides:
        raise UserError(f"say what to work on: {job}.py --config configs/demo.yaml (or --help)")
    return load_config(arguments.config, arguments.overrides)


def check_workspace(config: CocuConfig) -> None:
    """Find an unusable workspace at start-up.

    Raises:
        UserError: ``workspace`` is missing or cannot be created.
    """
    if not config.workspace:
        raise UserError(
            "workspace is not set: the folder of all tables, e.g. workspace=workspace/demo or s3a://bucket/cocu"
        )
    if "://" not in config.workspace:
        config.workspace = str(Path(config.workspace).resolve())  # tasks may run in another directory
    filesystem, path = resolve(config.workspace)
    try:
        filesystem.create_dir(path, recursive=True)
    except OSError as error:
        raise UserError(f"workspace={config.workspace}: cannot create this folder: {error}") from None


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
        from spark_jobs.session import open_session

        session = open_session(config)
        try:
            run(session, config)
        finally:
            session.stop()
        return 0

    run_entry(main, sys.argv[1:])
