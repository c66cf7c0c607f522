"""What masks show: the classes in each PNG of class indices, and their areas."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from configs.errors import UserError
from evaluation.class_lists import read_numbered_classes, without_background
from evaluation.class_names import BACKGROUND
from evaluation.mask_files import decode_mask
from evaluation.photos import PICTURE_ERRORS
from evaluation.semantic_gap.truth import Picture

__all__ = ["read_classes", "read_masks"]


def read_classes(path: str | Path) -> dict[int, str]:
    """Index in the masks -> class name, background left out; a file as evaluation.class_lists takes it.

    Raises:
        UserError: as there, or no class but the background.
    """
    classes = read_numbered_classes(path, "--classes")
    without_background(list(classes.values()), f"--classes {path}")
    return {index: name for index, name in classes.items() if name != BACKGROUND}


def read_masks(folder: str | Path, classes: dict[int, str], min_area: float = 0.0) -> list[Picture]:
    """One picture for each PNG of a folder, its key the file's name without ending.

    A class is visible if it covers more than nothing and at least ``min_area`` of the picture. Indices that are no class
    (background, 255) are not.

    Raises:
        UserError: no PNG there, or one that holds no class indices.
    """
    files = sorted(Path(folder).glob("*.png"))
    if not files:
        raise UserError(f"{folder}: no .png in it; name a folder of masks whose pixels are class indices")
    with ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(_shares, files))
    pictures = []
    for file, areas in zip(files, shares, strict=True):
        seen = {
            classes[index]: area for index, area in areas.items() if index in classes and area >= min_area
        }
        pictures.append(Picture(file.stem, tuple(seen), tuple(seen.values())))
    return pictures


def _shares(file: Path) -> dict[int, float]:
    """Index -> share of the picture."""
    try:
        indices, counts = np.unique(decode_mask(file.read_bytes()), return_counts=True)
    except PICTURE_ERRORS as error:
        raise UserError(f"{file}: not a readable mask ({error}); write it again") from None
    return dict(zip(indices.astype(int).tolist(), (counts / counts.sum()).tolist(), strict=True))
