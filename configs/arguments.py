"""``--config FILE [key=value ...]``, the same for every entry."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from configs.errors import UserError
from configs.loading import describe_options, load_config
from configs.paths import expand_home
from configs.schema import CocuConfig

__all__ = ["parse_config"]


def parse_config(argv: Sequence[str], prog: str, text: str, sections: Sequence[str]) -> CocuConfig:
    """The configuration that the command line names; ``--help`` shows ``text`` and the options of ``sections``.

    Raises:
        UserError: nothing is named, or something in the configuration is wrong.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=text,
        epilog="options (in the file, or as key=value):\n" + describe_options("", *sections),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        type=expand_home,
        metavar="FILE",
        help="YAML file with the configuration, e.g. configs/demo.yaml",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options that win over the file")
    arguments = parser.parse_intermixed_args(list(argv))  # options may stand before and after --config
    if not arguments.config and not arguments.overrides:
        raise UserError(f"say what to work on: {prog} --config configs/demo.yaml (or --help)")
    return load_config(arguments.config, arguments.overrides)
