"""`python -m spark_jobs.publish TABLE ... --config FILE`: finished tables as plain folders, for SQL and other readers."""

from __future__ import annotations

import argparse
import sys

from configs.arguments import add_common, split_words
from configs.errors import UserError, run_entry
from configs.loading import load_config
from configs.overwrite import TABLES
from spark_jobs.engine.entry import check_workspace
from storage import tables
from storage.views import published

__all__ = ["main"]

HELP = """\
Publish finished tables as plain folders of Parquet files, workspace/views/TABLE: for spark.read.parquet,
DuckDB, pandas, Hugging Face datasets, without this project (docs/sql.md). Needs no Spark.

On a local disk the files are hard links to the table's own, take no room, and the folder appears whole; on
object stores they are copied inside the store. Nothing is done where the view is of this build already."""

_READABLE = tuple(name for name in TABLES if name not in ("index", "probe"))


def main(argv: list[str]) -> int:
    """Publish the tables that are named, or all that are there, and say where each is."""
    parser = argparse.ArgumentParser(
        prog="python -m spark_jobs.publish",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common(parser, "configs/demo.yaml")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="TABLE | key=value",
        help=f"tables (default: all that are there): {', '.join(_READABLE)}",
    )
    arguments = parser.parse_intermixed_args(argv)
    wanted, overrides = split_words(arguments.words)
    config = load_config(arguments.config, overrides)
    check_workspace(config, create=False)
    for name in wanted:
        if name not in _READABLE:
            raise UserError(f"'{name}' is no table that can be published; there are {', '.join(_READABLE)}")
    found = (
        [tables.read_manifest(config.workspace, name) for name in wanted]
        if wanted
        else [manifest for name in _READABLE if (manifest := tables.find_manifest(config.workspace, name))]
    )
    if not found:
        raise UserError(f"workspace {config.workspace} holds no finished table; run ingest first")
    for manifest in found:
        address, made = published(manifest)
        print(f"publish: {address}: {manifest.rows:,} rows{'' if made else ', as it was'}", flush=True)
    return 0


if __name__ == "__main__":
    run_entry(main, sys.argv[1:])
