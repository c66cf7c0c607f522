"""The benchmarks: what each one is, read from its mmengine config in the folder configs beside this file."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from configs.errors import UserError
from evaluation.protocol import Protocol

__all__ = [
    "ALL", "FOLDER", "NAMES", "VARIANTS", "Benchmark", "load_benchmark", "scaled", "select_benchmarks",
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
    other_images: tuple[int, ...]
    """Further counts that the split is published with."""
    dataset: dict[str, Any]
    """mmengine config of the data set; ``data_root`` is the real folder once the layout is checked."""
    protocol: Protocol
    ignore_index: int
    wide_masks: bool
    """RGB masks hold R + 256 G."""
    other_mask_suffixes: tuple[str, ...]
    """Names under which other converters write the same masks."""
    prepare: str
    """Command that makes its masks; empty where they are used as published."""
    runtime: dict[str, Any]
    """The rest of the config: data loader, evaluator, loop."""
    names: tuple[str, ...] | None = None
    """Of the images in its list, where it has one, once the layout is checked."""

    @property
    def layout(self) -> str:
        """The folders it needs, in words."""
        prefix, suffix = self.dataset["data_prefix"], self.dataset["seg_map_suffix"]
        listed = f"{self.dataset['ann_file']}, " if self.dataset.get("ann_file") else ""
        photos = ".jpg (or another format)" if self.name == FOLDER else self.dataset["img_suffix"]
        return (
            f"{self.dataset['data_root']}/ with {listed}{prefix['img_path']}/*{photos} "
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
        other_images=tuple(values["other_images"]),
        dataset=values["dataset"],
        protocol=Protocol(**values["protocol"]),
        ignore_index=values["ignore_index"],
        wide_masks=values["wide_masks"],
        other_mask_suffixes=tuple(values["other_mask_suffixes"]),
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
