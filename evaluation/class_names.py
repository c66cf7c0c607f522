"""The names put into the prompts where they differ from the data sets' own, all in this one place.

Every benchmark's classes are mmsegmentation's, except for those of ImageNet-S, which mmsegmentation does
not know: they are the first WordNet lemmas in mask order, kept in ``curation/text/benchmark_classes.json``, the
list that also serves to hold benchmark classes out of the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

__all__ = ["BACKGROUND", "PROMPT_NAMES", "imagenet_s_names", "prompt_names"]

BACKGROUND = "background"
"""As first class of a list it is no prompt: the background rule gives its pixels."""

_VOC = {"diningtable": "table", "pottedplant": "plant", "tvmonitor": "monitor"}
_CONTEXT = {"aeroplane": "airplane", "pottedplant": "plant", "tvmonitor": "monitor"}

PROMPT_NAMES: dict[str, dict[str, str]] = {
    "voc": _VOC,
    "voc20": _VOC,
    "context": _CONTEXT,
    "context59": _CONTEXT,
}
"""Benchmark -> the data set's name -> the name in the prompt."""


def prompt_names(benchmark: str, classes: Sequence[str]) -> list[str]:
    """What the prompts say for a benchmark's classes, the background among them left out."""
    changes = PROMPT_NAMES.get(benchmark, {})
    named = classes[1:] if classes and classes[0] == BACKGROUND else classes
    return [changes.get(name, name).strip() for name in named]


@lru_cache(maxsize=2)
def imagenet_s_names(count: int) -> tuple[str, ...]:
    """The 50 or 300 classes of ImageNet-S in mask order (mask value 1 first)."""
    text = resources.files("curation.text").joinpath("benchmark_classes.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)[f"imagenet_s{count}"])
