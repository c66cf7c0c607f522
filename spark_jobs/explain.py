"""`python -m spark_jobs.explain KEY --config FILE`: one pair's archive in the terminal."""

from __future__ import annotations

import argparse
import sys

from configs.arguments import add_common, split_words
from configs.errors import UserError, run_entry
from configs.loading import load_config
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
    add_common(parser, "configs/demo.yaml")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="KEY | key=value",
        help="corpus/shard/sample, e.g. demo/00000/000000012; options",
    )
    arguments = parser.parse_intermixed_args(argv)
    keys, overrides = split_words(arguments.words)
    if len(keys) != 1:
        raise UserError(f"name one pair, as corpus/shard/sample; found {', '.join(keys) or 'none'}")
    config = load_config(arguments.config, overrides)
    check_workspace(config, create=False)
    print(explain(config.workspace, keys[0]))
    return 0


if __name__ == "__main__":
    run_entry(main, sys.argv[1:])
