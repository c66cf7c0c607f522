"""Masks as they are published -> masks as the benchmarks need them. Run once a data set; safe to repeat.

  python -m evaluation.convert coco-stuff  --data ROOT    coco_stuff164k: ids 0..181 -> 171 train ids
  python -m evaluation.convert coco-object --data ROOT    coco_stuff164k: the same files -> 80 things + background
  python -m evaluation.convert imagenet-s  --data ROOT --count 50    R + 256 G -> 16-bit grey (for other tools)
  python -m evaluation.convert context     --data ROOT --labels DIR    459 labels (.mat) -> 59 classes + background

ROOT is what evaluation.evaluate gets as --data. All ids of all masks are checked: one that holds an id which
cannot be is named and nothing more is written. ADE20K and PASCAL VOC need no conversion; Cityscapes has
mmsegmentation's tools/dataset_converters/cityscapes.py.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from configs.errors import UserError, is_full_disk, run_entry
from configs.output_folder import told_when_full
from configs.paths import expand_home
from configs.text_files import read_text
from evaluation.benchmarks.masks import (
    coco_object_ids,
    coco_stuff_ids,
    context_ids,
    imagenet_s_ids,
    read_context_labels,
)
from evaluation.mask_files import decode_mask

__all__ = ["main"]

_COCO_IMAGES = {"val2017": 5000, "train2017": 118287}
_IMAGENET_S_IMAGES = {50: 752, 300: 4097}
_CONTEXT_VAL = (5104, 5105)


def main(argv: list[str]) -> int:
    """Command line; 0, or 2 after one line for a mistake."""
    options = _parser().parse_args(argv)
    root = Path(options.data)
    if not root.is_dir():
        raise UserError(f"--data {root}: no such folder")
    if options.processes < 1:
        raise UserError(f"--processes: {options.processes} is too small; write 1 or more")
    with told_when_full(root, "--data"):
        _COMMANDS[options.command](root, options)
    return 0


@dataclass(frozen=True)
class _Work:
    """One mask to make."""

    source: Path
    target: Path
    own: int | None = None


def _coco(
    convert: Callable[[np.ndarray], np.ndarray], suffix: str, root: Path, options: argparse.Namespace
) -> None:
    folder = root / "coco_stuff164k" / "annotations" / options.split
    sources = [path for path in _files(folder, "*.png") if re.fullmatch(r"\d+", path.stem)]
    if not sources:
        raise UserError(f"{folder}: no masks <image id>.png; unpack stuffthingmaps_trainval2017.zip there")
    work = [_Work(path, path.with_name(f"{path.stem}{suffix}.png")) for path in sources]
    _check_count(folder, len(work), (_COCO_IMAGES[options.split],), options.partial)
    _convert_all(work, partial(_convert_png, convert), options.processes)


def _coco_stuff(root: Path, options: argparse.Namespace) -> None:
    _coco(coco_stuff_ids, "_labelTrainIds", root, options)


def _coco_object(root: Path, options: argparse.Namespace) -> None:
    _coco(coco_object_ids, "_objectTrainIds", root, options)


def _imagenet_s(root: Path, options: argparse.Namespace) -> None:
    base = root / f"ImageNetS{options.count}"
    sources = _files(base / "validation-segmentation", "*/*.png")
    folders = sorted({path.parent.name for path in sources})
    if len(folders) != options.count and not options.partial:
        raise UserError(
            f"{base}/validation-segmentation: {len(folders)} class folders; there must be {options.count}"
        )
    _check_count(base, len(sources), (_IMAGENET_S_IMAGES[options.count],), options.partial)
    whole = len(folders) == options.count
    target = base / "validation-segmentation-16bit"
    work = [
        _Work(
            path,
            target / path.parent.name / path.name,
            folders.index(path.parent.name) + 1 if whole else None,
        )
        for path in sources
    ]
    _convert_all(work, partial(_convert_imagenet_s, options.count), options.processes)


def _context(root: Path, options: argparse.Namespace) -> None:
    from evaluation.benchmarks.mmseg_import import import_mmseg

    import_mmseg()
    from mmseg.datasets import PascalContextDataset

    base, labels = root / "VOCdevkit" / "VOC2010", Path(options.labels)
    table = read_context_labels(labels / "labels.txt", PascalContextDataset.METAINFO["classes"])
    listing = base / "ImageSets" / "Main" / "val.txt"
    if not listing.is_file():
        raise UserError(f"{listing}: missing; it comes with VOC2010 and says which images are the split val")
    wanted = read_text(listing).split()
    found = {path.stem: path for path in [*labels.glob("*.mat"), *labels.glob("*/*.mat")]}
    names = [name for name in wanted if name in found]
    _check_count(labels, len(names), _CONTEXT_VAL, options.partial)
    target = base / "SegmentationClassContext"
    work = [_Work(found[name], target / f"{name}.png") for name in names]
    _convert_all(work, partial(_convert_mat, table), options.processes)
    split = base / "ImageSets" / "SegmentationContext" / "val.txt"
    split.parent.mkdir(parents=True, exist_ok=True)
    split.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    print(f"{split}: {len(names):,} names")


def _files(folder: Path, pattern: str) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder (docs/evaluation.md says which files go where)")
    return sorted(folder.glob(pattern))


def _check_count(folder: Path, found: int, official: Sequence[int], allowed: bool) -> None:
    if found == 0 or (found not in official and not allowed):
        wanted = " or ".join(f"{count:,}" for count in official)
        raise UserError(f"{folder}: {found:,} masks, the split has {wanted}; complete it, or add --partial")


def _convert_png(convert: Callable[[np.ndarray], np.ndarray], work: _Work) -> list[int]:
    return _save(convert(decode_mask(work.source.read_bytes())), work.target)


def _convert_imagenet_s(count: int, work: _Work) -> list[int]:
    mask = decode_mask(work.source.read_bytes(), wide=True)
    return _save(imagenet_s_ids(mask, count, work.own), work.target)


def _convert_mat(table: np.ndarray, work: _Work) -> list[int]:
    from scipy.io import loadmat

    return _save(
        context_ids(loadmat(work.source, variable_names=["LabelMap"])["LabelMap"], table), work.target
    )


def _save(mask: np.ndarray, target: Path) -> list[int]:
    """Write the mask whole or not at all; returns the ids in it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        Image.fromarray(mask).save(unfinished, format="PNG")
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return np.unique(mask).tolist()


def _guarded(convert: Callable[[_Work], list[int]], work: _Work) -> list[int] | str:
    try:
        return convert(work)
    except (OSError, SyntaxError, ValueError, KeyError, zlib.error) as error:
        if isinstance(error, OSError) and is_full_disk(error):
            raise
        return f"{work.source}: {' '.join(str(error).split())[:200]}"


def _convert_all(work: list[_Work], convert: Callable[[_Work], list[int]], processes: int) -> None:
    """Convert in parallel, stop at the first bad mask, say what was made.

    Raises:
        UserError: the first bad mask, named.
    """
    seen: set[int] = set()
    task = partial(_guarded, convert)
    bar = tqdm(total=len(work), unit="mask", mininterval=0.2 if sys.stderr.isatty() else 30.0)
    with bar, _mapper(processes) as mapped:
        for answer in mapped(task, work):
            if isinstance(answer, str):
                raise UserError(f"{answer}; {bar.n:,} of {len(work):,} masks were converted before it")
            seen.update(answer)
            bar.update()
    print(
        f"{work[0].target.parent}: {len(work):,} masks, {len(seen)} different ids, {min(seen)} to {max(seen)}"
    )


@contextlib.contextmanager
def _mapper(processes: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """``map`` over processes, in order; leaving it drops what has not begun."""
    if processes == 1:
        yield map
        return
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        yield partial(pool.map, chunksize=16)
    finally:
        pool.shutdown(cancel_futures=True)


_COMMANDS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "coco-object": _coco_object,
    "coco-stuff": _coco_stuff,
    "imagenet-s": _imagenet_s,
    "context": _context,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in _COMMANDS:
        command = commands.add_parser(name)
        command.add_argument(
            "--data", type=expand_home, required=True, help="the folder that holds the data sets"
        )
        command.add_argument("--processes", type=int, default=1, help="conversions at a time (%(default)s)")
        command.add_argument(
            "--partial", action="store_true", help="accept fewer masks than the official split"
        )
        if name.startswith("coco"):
            command.add_argument("--split", choices=sorted(_COCO_IMAGES), default="val2017")
        if name == "imagenet-s":
            command.add_argument(
                "--count", type=int, choices=sorted(_IMAGENET_S_IMAGES), default=50, help="classes"
            )
        if name == "context":
            command.add_argument(
                "--labels", type=expand_home, required=True, help="folder with labels.txt and the .mat files"
            )
    return parser


if __name__ == "__main__":
    run_entry(main)
