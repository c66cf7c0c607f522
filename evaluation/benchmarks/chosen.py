"""Which benchmarks an evaluation or a validation looks at, and how: names, classes, threshold and sizes put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.errors import UserError
from evaluation.benchmarks.catalogue import FOLDER, Benchmark, scaled, select_benchmarks
from evaluation.benchmarks.layout import check_layout
from evaluation.class_lists import read_class_list, without_background
from evaluation.class_names import BACKGROUND
from evaluation.protocol import Protocol

__all__ = ["Choice", "choose", "sized"]

_FOLDER_THRESHOLD = 0.95


@dataclass(frozen=True)
class Choice:
    """What a user says of benchmarks; the names are those of ``evaluation.evaluate``'s options."""

    benchmark: str
    data: str
    classes: str | None = None
    background_threshold: float | None = None
    partial: bool = False
    """fewer images than the official split are no error"""
    short_side: int | None = None
    window: int | None = None
    stride: int | None = None


def choose(choice: Choice) -> list[Benchmark]:
    """The benchmarks with their real folders, classes and thresholds; every file they need was looked for.

    Raises:
        UserError: an unknown name, a missing file, classes that cannot be, a threshold where there is no background.
    """
    completed = [_completed(benchmark, choice) for benchmark in select_benchmarks(choice.benchmark)]
    return [check_layout(benchmark, Path(choice.data), choice.partial) for benchmark in completed]


def _completed(benchmark: Benchmark, choice: Choice) -> Benchmark:
    """One's own classes put into the benchmark ``folder``; the threshold option put in its place."""
    threshold = choice.background_threshold
    if benchmark.name == FOLDER:
        if not choice.classes:
            raise UserError(
                "--benchmark folder needs --classes FILE: names one a line, in the order of the mask ids"
            )
        names = read_class_list(choice.classes, "--classes")
        without_background(names, f"--classes {choice.classes}")
        if names[0] == BACKGROUND:
            threshold = _FOLDER_THRESHOLD if threshold is None else threshold
        elif threshold is not None:
            raise UserError(
                f"--background-threshold: the first line of {choice.classes} must be 'background'"
            )
        benchmark = dataclasses.replace(
            benchmark, dataset={**benchmark.dataset, "metainfo": {"classes": names}}
        )
    elif threshold is not None and benchmark.protocol.background_threshold is None:
        raise UserError(f"--background-threshold: {benchmark.title} has no background; leave it out")
    if threshold is None:
        return benchmark
    return dataclasses.replace(
        benchmark, protocol=dataclasses.replace(benchmark.protocol, background_threshold=threshold)
    )


def sized(benchmarks: Sequence[Benchmark], image_size: int, choice: Choice) -> tuple[Benchmark, ...]:
    """Windows scaled to the model's image size (pixels), then what the user says.

    Raises:
        UserError: a stride larger than the window.
    """
    given = {name: getattr(choice, name) for name in ("short_side", "window", "stride")}
    given = {name: value for name, value in given.items() if value}
    final = []
    for benchmark in benchmarks:
        protocol: Protocol = dataclasses.replace(scaled(benchmark.protocol, image_size), **given)
        if protocol.stride > protocol.window:
            raise UserError(
                f"--stride: {protocol.stride} is more than the window, {protocol.window}: pixels between windows would "
                "be left out; write at most the window"
            )
        final.append(dataclasses.replace(benchmark, protocol=protocol))
    return tuple(final)
