"""Job 8: all tables -> report.html, one self-contained page."""

from __future__ import annotations

import sys
import time

from pyspark.sql import SparkSession

from configs.errors import run_entry
from configs.schema import CocuConfig
from spark_jobs.engine.task_errors import as_user_errors
from spark_jobs.reporting.page import load_report_data, render_report
from storage import tables
from storage.small_files import write_atomically

__all__ = ["check", "main", "run"]

HELP = """\
Write <workspace>/report.html: counts and rejects, concept frequencies, what the archives add, score and
similarity distributions, and a gallery of report.samples pairs with neighbours and ranked concepts.
It reads part of the tables with Arrow and needs no cluster: `python -m spark_jobs.report` does as well."""


def check(config: CocuConfig) -> None:
    """What can be wrong at start-up."""
    tables.read_manifest(config.workspace, "archives")


def run(_session: SparkSession | None, config: CocuConfig) -> str:
    """Write the page; returns its address."""
    started = time.monotonic()
    page = render_report(load_report_data(config.workspace, config))
    address = tables.join(config.workspace, "report.html")
    write_atomically(address, page.encode())
    print(f"report: {address} ({len(page) / 1e6:.1f} MB, {time.monotonic() - started:.1f} s)", flush=True)
    return address


def main() -> None:
    """Entry, with or without spark-submit: no Spark session is needed."""
    from spark_jobs.engine.entry import check_workspace, parse_arguments

    def work(argv: list[str]) -> int:
        config = parse_arguments(argv, "report", HELP, ["report"])
        check_workspace(config, create=False)
        check(config)
        with as_user_errors():
            run(None, config)
        return 0

    run_entry(work, sys.argv[1:])


if __name__ == "__main__":
    main()
