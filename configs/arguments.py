"""``--config FILE [key=value ...]`` in any order, the same for every entry."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence

from configs.errors import UserError
from configs.loading import describe_options, load_config
from configs.paths import expand_home
from configs.schema import CocuConfig
from configs.version import VERSION

__all__ = ["add_common", "parse_command", "parse_config", "split_words"]

_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")


def add_common(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """The options that every entry has: the configuration file, and the version."""
    text = "YAML file with the configuration, e.g. configs/demo.yaml"
    parser.add_argument(
        "-c", "--config", type=expand_home, metavar="FILE", default=default,
        help=f"{text} (default: {default})" if default else text,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"cocu-spark {VERSION}")


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words of a command line that are names, and those that are ``key=value``, whatever their order."""
    overrides = [word for word in words if _OVERRIDE.match(word)]
    return [word for word in words if not _OVERRIDE.match(word)], overrides


def parse_config(argv: Sequence[str], prog: str, text: str, sections: Sequence[str]) -> CocuConfig:
    """The configuration that the command line names; ``--help`` shows ``text`` and the options of ``sections``.

    Raises:
        UserError: nothing is named, or something in the configuration is wrong.
    """
    return parse_command(argv, prog, text, sections, {})[0]


def parse_command(
    argv: Sequence[str], prog: str, text: str, sections: Sequence[str], flags: Mapping[str, str]
) -> tuple[CocuConfig, set[str]]:
    """The same for an entry with further flags: name -> what ``--help`` says; which of them were given.

    Raises:
        UserError: nothing is named, or something in the configuration is wrong.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=text,
        epilog="options (in the file, or as key=value):\n" + describe_options("", *sections),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common(parser)
    for name, told in flags.items():
        parser.add_argument(f"-{name[0]}", f"--{name}", action="store_true", help=told)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options that win over the file")
    arguments = parser.parse_intermixed_args(list(argv))  # options may stand before and after --config
    if not arguments.config and not arguments.overrides:
        raise UserError(f"say what to work on: {prog} --config configs/demo.yaml (or --help)")
    given = {name for name in flags if getattr(arguments, name)}
    return load_config(arguments.config, arguments.overrides), given
