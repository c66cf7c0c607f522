"""`make watch`, `python -m spark_jobs.watch --config FILE`: a run that is under way, from another terminal."""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import datetime
from typing import Any

from configs.arguments import add_common, split_words
from configs.errors import UserError, run_entry
from configs.loading import load_config
from configs.schema import CocuConfig
from spark_jobs.engine.entry import check_workspace
from storage.addresses import join
from storage.metrics import now, read_metrics
from storage.small_files import read_small

__all__ = ["main", "watch_text"]

HELP = """\
Show how far the runs in a workspace are: of each table that was worked on the units, rows, rejects, rate, time
left and memory of a worker, and the epochs of a training. Reads workspace/metrics and the training's
epochs.jsonl; starts and changes nothing."""
_STALLED = 3  # times as long as the longest wave yet, without a line


def watch_text(config: CocuConfig, at: str) -> str:
    """The state of a workspace at a time, as ``storage.metrics.now`` writes it."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for lines in read_metrics(config.workspace):
        runs.pop(lines[0]["table"], None)  # an earlier run of the same table
        runs[lines[0]["table"]] = lines
    text = [_line(lines, at) for lines in runs.values()]
    epochs = read_small(join(config.train.output or join(config.workspace, "training"), "epochs.jsonl"))
    if epochs:
        text.append(_training([json.loads(line) for line in epochs.decode().splitlines()], at))
    return "\n".join(text) or f"nothing was run in {config.workspace} yet"


def _line(lines: list[dict[str, Any]], at: str) -> str:
    last = lines[-1]
    rows, rejected = sum(line["rows"] for line in lines), sum(sum(line["rejects"].values()) for line in lines)
    seconds = sum(line["seconds"] for line in lines)
    rate = sum(line["rows_in"] for line in lines) / max(seconds, 1e-9)
    memory = max(line["memory"] for line in lines)
    parts = [
        f"{last['units_done']:,} of {last['units']:,} units",
        f"{rows:,} rows",
        f"{rejected:,} rejected",
        f"{rate:,.0f} rows/s",
        f"{memory / 1e9:.1f} GB a worker",
    ]
    failed = sum(line["failed_units"] for line in lines)
    if failed:
        parts.append(f"{failed:,} units failed")
    if last["complete"]:
        parts.append(f"complete since {last['time'][:19]}")
        return f"{last['table']:17s} {', '.join(parts)}"
    here = sum(line["units_here"] for line in lines)
    left = (last["units"] - last["units_done"]) * seconds / max(1, here)
    parts.append(f"about {_clock(left)} left")
    silent = _seconds(last["time"], at)
    if silent > max(60.0, _STALLED * max(line["seconds"] for line in lines)):
        parts.append(f"no wave for {_clock(silent)}: stopped?")
    return f"{last['table']:17s} {', '.join(parts)}"


def _training(lines: list[dict[str, Any]], at: str) -> str:
    last = lines[-1]
    left = (last["epochs"] - last["epoch"]) * last["seconds"]
    end = f"about {_clock(left)} left" if left else "done"
    return (
        f"{'training':17s} epoch {last['epoch']:,} of {last['epochs']:,}, mean loss {last['loss']:.4f}, "
        f"{last['rate']:,.0f} images/s, {last['memory'] / 1e9:.1f} GB, {end}; {_clock(_seconds(last['time'], at))} ago"
    )


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _clock(seconds: float) -> str:
    whole = max(round(seconds), 0)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def main(argv: list[str]) -> int:
    """Print the state, again and again until Ctrl-C, or once."""
    parser = argparse.ArgumentParser(
        prog="python -m spark_jobs.watch",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common(parser, "configs/demo.yaml")
    parser.add_argument(
        "--every", type=float, default=5.0, metavar="SECONDS", help="between two looks (default: 5)"
    )
    parser.add_argument("--once", action="store_true", help="look once and end")
    parser.add_argument("words", nargs="*", metavar="key=value")
    given = parser.parse_intermixed_args(argv)
    names, overrides = split_words(given.words)
    if names:
        raise UserError(f"'{names[0]}': write options as section.key=value")
    config = load_config(given.config, overrides)
    check_workspace(config, create=False)
    while True:
        text = watch_text(config, now())
        clear = "\x1b[2J\x1b[H" if sys.stdout.isatty() and not given.once else ""
        print(f"{clear}{config.workspace}, {now()[:19]}\n{text}", flush=True)
        if given.once:
            return 0
        time.sleep(given.every)


if __name__ == "__main__":
    run_entry(main, sys.argv[1:])
