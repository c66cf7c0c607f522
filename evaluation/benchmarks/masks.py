"""How published ids of masks become those of the benchmarks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from configs.errors import UserError
from configs.text_files import read_text
from evaluation.mask_files import MaskError

__all__ = [
    "COCO_UNUSED", "coco_object_ids", "coco_stuff_ids", "context_ids", "imagenet_s_ids", "read_context_labels",
]  # fmt: skip

_UNLABELLED = 255
_IMAGENET_S_IGNORE = 1000

COCO_UNUSED = frozenset({11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90})
"""Values of COCO-Stuff masks (category id - 1) that no class has."""
_COCO_VALUES = [value for value in range(182) if value not in COCO_UNUSED]
_THINGS = 80


def coco_stuff_ids(mask: np.ndarray) -> np.ndarray:
    """COCO-Stuff's published ids (0..181, 255) -> train ids 0..170 uint8, 255 where unlabelled.

    Raises:
        MaskError: an id that no class has.
    """
    _refuse(mask, [*_COCO_VALUES, _UNLABELLED])
    table = np.full(256, _UNLABELLED, np.uint8)
    table[_COCO_VALUES] = np.arange(len(_COCO_VALUES))
    return table[mask]


def coco_object_ids(mask: np.ndarray) -> np.ndarray:
    """COCO-Stuff's published ids -> things 1..80 uint8; stuff and what is unlabelled become background, 0.

    Raises:
        MaskError: an id that no class has.
    """
    train = coco_stuff_ids(mask)
    return np.where(train < _THINGS, train + 1, 0).astype(np.uint8)


def imagenet_s_ids(mask: np.ndarray, count: int, own: int | None = None) -> np.ndarray:
    """Wide ids (R + 256 G, as decoded) of ImageNet-S -> uint16, checked; ``own``: the class of its folder.

    Raises:
        MaskError: an id beyond ``count`` other than 1000, or other classes without the folder's own.
    """
    _refuse(mask, [*range(count + 1), _IMAGENET_S_IGNORE])
    named = np.setdiff1d(mask, [0, _IMAGENET_S_IGNORE])
    if own is not None and len(named) and own not in named:
        raise MaskError(f"it holds class {named[0]}, and its folder is class {own}")
    return mask.astype(np.uint16)


def read_context_labels(path: Path, classes: Sequence[str]) -> np.ndarray:
    """``labels.txt`` of PASCAL Context ("12: name" a line) -> table from the 459 ids to 0..59, uint8.

    Args:
        path: the file.
        classes: background and the 59, in the order of their ids.

    Raises:
        UserError: no such file, or a class it does not name.
    """
    if not path.is_file():
        raise UserError(f"{path}: missing; PASCAL Context's labels.txt says which of the 459 ids is which")
    rows = re.findall(r"^\s*(\d+)\s*:\s*(.+?)\s*$", read_text(path), re.MULTILINE)
    ids = {name: int(number) for number, name in rows}
    table = np.zeros(max(ids.values(), default=0) + 1, np.uint8)
    for number, name in enumerate(classes[1:], start=1):
        if name not in ids:
            raise UserError(
                f"{path}: has no class '{name}'; give the labels.txt that comes with the .mat files"
            )
        table[ids[name]] = number
    return table


def context_ids(labels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """PASCAL Context's 459 ids -> 0..59, by :func:`read_context_labels`; all other classes are background.

    Raises:
        MaskError: an id beyond the table.
    """
    _refuse(labels, range(len(table)))
    return table[labels]


def _refuse(mask: np.ndarray, allowed: Iterable[int]) -> None:
    wrong = np.setdiff1d(mask, np.fromiter(allowed, np.int64))
    if len(wrong):
        raise MaskError(f"holds id {wrong[0]}, which is no class of this data set")
