"""One or several checkpoints under evaluation: their names and folders, and what is written of each and of all."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import UserError
from configs.output_folder import write_whole

__all__ = ["Subject", "name_checkpoints", "only_first_class", "write_together"]


@dataclass
class Subject:
    """A checkpoint: its path, short name, folder of results and the configuration in it."""

    path: str
    name: str
    folder: Path
    config: dict[str, Any]
    confusions: list[np.ndarray] = field(default_factory=list)
    """Of each benchmark, int64 (C, C): pixels of each true class by predicted class."""

    @property
    def image_size(self) -> int:
        """Of the model."""
        from models.groupvit_config import GroupViTConfig

        return GroupViTConfig.from_dict(self.config).image_size

    def take_matrices(self, entries: Sequence[dict[str, Any]]) -> None:
        """Keep the entries' matrices here; the entries name the files that they go to instead."""
        for entry in entries:
            self.confusions.append(np.array(entry.pop("confusion")))
            entry["confusion_file"] = f"confusion-{entry['name']}.csv"

    def write(self, results: dict[str, Any]) -> None:
        """results.json, miou.png and the matrices, into the folder."""
        from evaluation.results import draw_figure, write_results

        write_results(results, self.folder)
        draw_figure(results["benchmarks"], self.folder / "miou.png")
        for entry, confusion in zip(results["benchmarks"], self.confusions, strict=True):
            with open(self.folder / entry["confusion_file"], "w", encoding="utf-8", newline="") as stream:
                writer = csv.writer(stream)
                writer.writerow(["true class", *entry["classes"]])
                writer.writerows(
                    [name, *row] for name, row in zip(entry["classes"], confusion.tolist(), strict=True)
                )


def name_checkpoints(paths: Sequence[str]) -> list[tuple[str, str, str]]:
    """(path, short name, folder) of each; of a single one the folder is the output's own, "".

    The name is the file's, with as many folders before it as tell the files apart.

    Raises:
        UserError: the same file twice.
    """
    if len(paths) == 1:
        return [(paths[0], Path(paths[0]).stem, "")]
    real = [Path(path).resolve() for path in paths]
    for number, path in enumerate(real):
        if path in real[:number]:
            raise UserError(f"--checkpoint {paths[number]}: is named twice; name each file once")
    parts = [path.with_suffix("").parts[1:] for path in real]
    names: list[str] = []
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["-".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            break
    else:  # alike but for their endings
        names = ["-".join(path.parts[1:]) for path in real]
    return [(path, name, name) for path, name in zip(paths, names, strict=True)]


def only_first_class(entry: dict[str, Any]) -> bool:
    """Whether all pixels that count are of class 0 and others do not count, as in masks of 0 and 255."""
    others = sum(sum(row) for row in entry["confusion"][1:])
    return len(entry["confusion"]) > 1 and others == 0 and entry["ignored_pixels"] > 0


def write_together(out: Path, subjects: Sequence[Subject], results: Sequence[dict[str, Any]]) -> str:
    """The page and, of several checkpoints, comparison.json; what to print: their table, and where things are."""
    from evaluation.results import comparison_table
    from evaluation.results_page import Evaluated, write_evaluation_page

    evaluated = [
        Evaluated(subject.name, subject.folder, found["benchmarks"], subject.confusions)
        for subject, found in zip(subjects, results, strict=True)
    ]
    facts = [("data", results[0]["data"])]
    if len(subjects) == 1:
        facts.insert(0, ("checkpoint", Path(subjects[0].path).name))
    write_evaluation_page(out / "index.html", evaluated, facts)
    if len(subjects) == 1:
        return f"{out / 'results.json'}, {out / 'miou.png'}, {out / 'index.html'}"
    names = [subject.name for subject in subjects]
    values = {
        "format": "cocu-comparison-1",
        "checkpoints": {name: found["checkpoint"] for name, found in zip(names, results, strict=True)},
        "miou": {
            entries[0]["name"]: {name: entry["miou"] for name, entry in zip(names, entries, strict=True)}
            for entries in zip(*(found["benchmarks"] for found in results), strict=True)
        },
    }
    write_whole(out / "comparison.json", json.dumps(values, indent=1) + "\n")
    return f"{comparison_table(names, results)}\n\n{out / 'comparison.json'}, {out / 'index.html'}"
