"""The benchmarks: what each one is, read from its mmengine config in evaluation/configs, and its layout, checked.

A wrong name or a missing file is found here, before any model is loaded.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from configs.errors import UserError
from evaluation.protocol import Protocol

__all__ = [
    "ALL", "FOLDER", "NAMES", "VARIANTS", "Benchmark", "check_layout", "load_benchmark", "scaled", "select_benchmarks",
]  # fmt: skip

_CONFIGS = Path(__file__).parent / "configs"

ALL = (
    "voc", "context", "coco_object", "imagenet_s_50", "imagenet_s_300", "cityscapes", "ade20k", "coco_stuff",
)  # fmt: skip
"""The eight of the paper."""
VARIANTS = ("voc20", "context59")
"""Without background, as later papers report them."""
FOLDER = "folder"
"""One's own data."""
NAMES = (*ALL, *VARIANTS, FOLDER)

_PAPER_IMAGE_SIZE = 224


@dataclass(frozen=True)
class Benchmark:
    """A data set with its protocol."""

    name: str
    title: str
    images: int | None
    """Of the official split; None for one's own data."""
    dataset: dict[str, Any]
    """mmengine config of the data set; ``data_root`` is the real folder once the layout is checked."""
    protocol: Protocol
    ignore_index: int
    prepare: str
    """Command that makes its masks; empty where they are used as published."""
    runtime: dict[str, Any]
    """The rest of the config: data loader, evaluator, loop."""

    @property
    def layout(self) -> str:
        """The folders it needs, in words."""
        prefix, suffix = self.dataset["data_prefix"], self.dataset["seg_map_suffix"]
        listed = f"{self.dataset['ann_file']}, " if self.dataset.get("ann_file") else ""
        return (
            f"{self.dataset['data_root']}/ with {listed}{prefix['img_path']}/*{self.dataset['img_suffix']} "
            f"and {prefix['seg_map_path']}/*{suffix}"
        )


def load_benchmark(name: str) -> Benchmark:
    """A benchmark by its name.

    Raises:
        UserError: there is none of that name; the nearest is named.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, (*NAMES, "all"), n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise UserError(f"--benchmark: '{name}' is unknown; {hint}known: {', '.join(NAMES)}, all")
    values = Config.fromfile(_CONFIGS / f"{name}.py").to_dict()
    return Benchmark(
        name=name,
        title=values["title"],
        images=values["images"],
        dataset=values["dataset"],
        protocol=Protocol(**values["protocol"]),
        ignore_index=values["ignore_index"],
        prepare=values["prepare"],
        runtime={
            key: values[key] for key in ("test_dataloader", "test_evaluator", "test_cfg", "default_scope")
        },
    )


def select_benchmarks(text: str) -> list[Benchmark]:
    """``voc,ade20k`` or ``all`` (the eight of the paper) -> benchmarks, each once, in the order given.

    Raises:
        UserError: an unknown name, or none.
    """
    names: list[str] = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        names.extend(ALL if name == "all" else [name])
    if not names:
        raise UserError(f"--benchmark: empty; write names of {', '.join(NAMES)}, or all")
    return [load_benchmark(name) for name in dict.fromkeys(names)]


def scaled(protocol: Protocol, image_size: int) -> Protocol:
    """The protocol for a model of another image size: all sides in the same ratio to it as in the paper.

    The paper's windows are for models of 224 pixels; one of 112 sees windows half as large.
    """
    if image_size == _PAPER_IMAGE_SIZE:
        return protocol
    sides = ("short_side", "long_side", "window", "stride")
    changes = {side: round(getattr(protocol, side) * image_size / _PAPER_IMAGE_SIZE) for side in sides}
    return replace(protocol, **changes)


def check_layout(benchmark: Benchmark, root: Path, partial: bool = False) -> Benchmark:
    """The benchmark with its real folder in ``root``, after a look at every file it needs.

    Args:
        benchmark: as loaded.
        root: what ``--data`` says.
        partial: fewer or more images than the official split are no error.

    Raises:
        UserError: names the first folder or file that is missing and the layout.
    """
    folder = _data_root(benchmark, root)
    names = _listed_names(benchmark, folder) if benchmark.dataset.get("ann_file") else None
    prefix, dataset = benchmark.dataset["data_prefix"], benchmark.dataset
    images = _stems(benchmark, folder / prefix["img_path"], dataset["img_suffix"])
    masks = _stems(benchmark, folder / prefix["seg_map_path"], dataset["seg_map_suffix"])
    names = sorted(images) if names is None else names
    for kind, present, part, suffix in (
        ("image", images, prefix["img_path"], dataset["img_suffix"]),
        ("mask", masks, prefix["seg_map_path"], dataset["seg_map_suffix"]),
    ):
        missing = [name for name in names if name not in present]
        if missing:
            more = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
            raise _missing(benchmark, folder / part / f"{missing[0]}{suffix}", f"{kind} missing{more}")
    _check_count(benchmark, folder, len(names), partial)
    return replace(benchmark, dataset={**dataset, "data_root": str(folder)})


def _data_root(benchmark: Benchmark, root: Path) -> Path:
    """The folder of the data set; one's own data may also lie directly in ``root``."""
    if not root.is_dir():
        raise UserError(f"--data {root}: no such folder; write the one that holds {benchmark.layout}")
    direct = root / benchmark.dataset["data_prefix"]["img_path"]
    if benchmark.name == FOLDER and direct.is_dir():
        return root
    return root / benchmark.dataset["data_root"]


def _listed_names(benchmark: Benchmark, folder: Path) -> list[str]:
    listing = folder / benchmark.dataset["ann_file"]
    if not listing.is_file():
        raise _missing(benchmark, listing, "list of images missing")
    return [line.strip() for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]


def _stems(benchmark: Benchmark, folder: Path, suffix: str) -> set[str]:
    if not folder.is_dir():
        raise _missing(benchmark, folder, "folder missing")
    cut = len(suffix)
    return {
        path.relative_to(folder).as_posix()[:-cut] for path in folder.rglob(f"*{suffix}") if path.is_file()
    }


def _check_count(benchmark: Benchmark, folder: Path, found: int, partial: bool) -> None:
    if found == 0:
        raise _missing(benchmark, folder, "no image there")
    if benchmark.images is not None and found != benchmark.images and not partial:
        raise UserError(
            f"{folder}: {benchmark.title} has {benchmark.images:,} images, found {found:,}; complete it, "
            "or add --partial to evaluate what is there"
        )


def _missing(benchmark: Benchmark, path: Path, what: str) -> UserError:
    made = f"; its masks are made by: {benchmark.prepare}" if benchmark.prepare else ""
    return UserError(f"{path}: {what}; {benchmark.title} needs {benchmark.layout}{made}")
