"""What masks show: the classes in each PNG of class indices, and their areas."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from configs.errors import UserError
from evaluation.photos import PICTURE_ERRORS
from evaluation.semantic_gap.files import read_json
from evaluation.semantic_gap.truth import Picture

__all__ = ["read_classes", "read_masks"]

_BACKGROUND = "background"


def read_classes(path: str | Path) -> dict[int, str]:
    """Index in the masks -> class name, background left out.

    From JSON: [{"index": 1, "name": "person"}, ...], {"1": "person", ...}, or ["background", "person", ...].

    Raises:
        UserError: no such file, another form, or a name given twice.
    """
    values = read_json(path, "--classes")
    try:
        if isinstance(values, dict):
            pairs = [(int(index), str(name)) for index, name in values.items()]
        elif all(isinstance(entry, str) for entry in values):
            pairs = list(enumerate(values))
        else:
            pairs = [(int(entry["index"]), str(entry["name"])) for entry in values]
    except (ValueError, TypeError, KeyError):
        raise UserError(
            f'--classes {path}: write {{"1": "person", ...}}, a list of names (the first is index 0) or of {{"index", "name"}}'
        ) from None
    classes = {index: name for index, name in pairs if name != _BACKGROUND}
    if not classes or len(set(classes.values())) < len(pairs) - sum(name == _BACKGROUND for _, name in pairs):
        raise UserError(f"--classes {path}: holds no class, or an index or a name twice")
    return classes


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
        with Image.open(file, formats=("PNG",)) as image:
            if image.mode not in ("L", "P", "1") and not image.mode.startswith("I"):
                raise UserError(
                    f"{file}: a mask has one channel of class indices, found a picture of mode {image.mode}"
                )
            indices, counts = np.unique(np.asarray(image), return_counts=True)
    except PICTURE_ERRORS as error:
        raise UserError(f"{file}: not a readable mask ({error}); write it again") from None
    return dict(zip(indices.astype(int).tolist(), (counts / counts.sum()).tolist(), strict=True))
