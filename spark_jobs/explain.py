"""`python -m spark_jobs.explain KEY --config FILE`: one pair's archive in the terminal."""

from __future__ import annotations

import argparse
import sys

from configs.errors import run_entry
from configs.loading import load_config
from configs.paths import expand_home
from spark_jobs.engine.entry import check_workspace
from spark_jobs.reporting.explain_text import explain

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Print caption, neighbours and ranked concepts of a pair."""
    parser = argparse.ArgumentParser(
        prog="python -m spark_jobs.explain",
        description="Show how the archive of one pair came about: its caption, its neighbours with their captions, "
        "and the ranked concepts, those that the caption lacks marked.",
    )
    parser.add_argument(
        "--config",
        type=expand_home,
        default="configs/demo.yaml",
        metavar="FILE",
        help="the configuration the tables were built with (default: %(default)s)",
    )
    parser.add_argument("key", metavar="KEY", help="corpus/shard/sample, e.g. demo/00000/000000012")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args(argv)
    config = load_config(arguments.config, arguments.overrides)
    check_workspace(config, create=False)
    print(explain(config.workspace, arguments.key))
    return 0


if __name__ == "__main__":
    run_entry(main, sys.argv[1:])
