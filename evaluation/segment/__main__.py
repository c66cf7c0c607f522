"""Segment one's own photos into one's own words, without training on either.

  python -m evaluation.segment --checkpoint C --classes "dog, grass, sky" photo.jpg ...

Photos are files, folders or quoted patterns ('photos/**/*.jpg'); of any size, turned by EXIF, grey, transparent or of
16 bits. Any words will do as classes. Every pixel gets one of them; to leave pixels that fit none of them
alone, write background as the first class or set --background-threshold.

Writes into --out: index.html (each photo beside its classes and groups), results.json, and for each photo
  NAME.mask.png     class numbers as pixels, in the order of results.json, at the photo's size
  NAME.classes.jpg  the classes laid over the photo, with a legend
  NAME.groups.jpg   the groups that the model takes the whole photo apart into, each with its nearest class
  NAME.stage1.jpg   the finer groups of an earlier stage

Photos that cannot be read are named and counted, the rest goes on; the exit code is then 1.

Examples:
  python -m evaluation.segment --checkpoint best.pt --classes "background, cat, sofa" photos/ --out seen
  python -m evaluation.segment --checkpoint best.pt --classes words.txt 'holiday/*.jpg' --background-threshold 0.9
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from configs.errors import UserError, run_entry
from configs.output_folder import make_output_folder, told_when_full, write_whole
from configs.paths import expand_home
from evaluation.benchmarks.catalogue import scaled
from evaluation.class_lists import read_class_words, without_background
from evaluation.class_names import BACKGROUND
from evaluation.photos import find_pictures
from evaluation.pictures import class_palette, colours, with_legend
from evaluation.protocol import Protocol, class_texts
from evaluation.results import file_hash
from evaluation.segment.page import SHOWN_SHARE, PageEntry, write_segment_page
from evaluation.segment.photo import Photo, Segmented, full_size, open_photo, segment_photos
from evaluation.segment.pictures import blended, group_picture, indexed_mask
from models.groupvit import GroupViT
from models.weights import load_model

__all__ = ["main", "segment_files"]

_THRESHOLD = 0.95  # PASCAL VOC's
_TOGETHER = 4  # photos whose windows share batches
_PAGE_PHOTOS = 2000
_QUALITY = 90


@dataclass(frozen=True)
class Task:
    """What to look for and how."""

    model: GroupViT
    names: tuple[str, ...]
    """Classes as numbered in masks, background first if there is one."""
    texts: torch.Tensor
    protocol: Protocol
    max_windows: int | None = None

    @property
    def palette(self) -> np.ndarray:
        """(C, 3) uint8; the background is black."""
        return class_palette(self.names)


def main(argv: list[str]) -> int:
    """The entry; returns 0, or 1 if a photo could not be read."""
    options = _parser().parse_args(argv)
    words, threshold = _wanted(options)
    files = find_pictures(options.photos)
    device = _device(options.device)
    model, _ = load_model(options.checkpoint, device)
    protocol = _protocol(options, model.config.image_size, threshold)
    names = (BACKGROUND, *words) if threshold is not None else tuple(words)
    task = Task(model, names, class_texts(model, words, protocol.template), protocol, options.max_windows)
    out = make_output_folder(options.out, "--out")
    started = time.monotonic()
    with told_when_full(out, "--out"):
        entries, failures = segment_files(task, files, out)
        seconds = time.monotonic() - started
        _write_page(out, task, entries, failures, options.checkpoint)
        _write_results(out, task, entries, failures, options.checkpoint, seconds)
    print(f"{len(entries):,} photos in {seconds:.1f} s ({len(entries) / max(seconds, 1e-9):.1f} a second)")
    print(f"results: {out / 'results.json'}\npage:    {out / 'index.html'}", flush=True)
    if failures:
        print(
            f"{len(failures)} of {len(files)} photos could not be read; they are named above", file=sys.stderr
        )
    return 1 if failures else 0


def segment_files(task: Task, files: Sequence[Path], out: Path) -> tuple[list[PageEntry], list[str]]:
    """Segment photos and write their pictures; returns the page's entries and what could not be read."""
    entries: list[PageEntry] = []
    failures: list[str] = []
    started = time.monotonic()
    with ThreadPoolExecutor(2) as writers:
        written: list[Future[None]] = []
        for photos in _together(_opened(files, task.protocol, failures), _TOGETHER):
            results = segment_photos(task.model, photos, task.texts, task.protocol, task.max_windows)
            for photo, result in zip(photos, results, strict=True):
                name = f"{len(entries) + 1:04d}-{re.sub(r'[^A-Za-z0-9._-]', '_', photo.path.stem)[:60]}"
                written.append(writers.submit(_write_pictures, task, photo, result, out / name))
                entries.append(_entry(photo, result, name))
                _tell(entries[-1], task.names, len(entries) + len(failures), len(files), started)
            for (
                job
            ) in written:  # the next photos are not begun before these are on disk: memory stays bounded
                job.result()
            written.clear()
    return entries, failures


def _opened(files: Sequence[Path], protocol: Protocol, failures: list[str]) -> Iterator[Photo]:
    """Photos in order, read a few ahead in threads; what cannot be read is told and kept as a failure."""
    with ThreadPoolExecutor(2) as readers:
        waiting: list[Future[Photo]] = []
        rest = iter(files)
        while True:
            while len(waiting) < _TOGETHER and (file := next(rest, None)) is not None:
                waiting.append(readers.submit(open_photo, file, protocol))
            if not waiting:
                return
            try:
                photo = waiting.pop(0).result()
            except UserError as error:
                failures.append(str(error))
                print(f"not read: {error}", file=sys.stderr, flush=True)
                continue
            yield photo


def _together(photos: Iterator[Photo], count: int) -> Iterator[list[Photo]]:
    batch: list[Photo] = []
    for photo in photos:
        batch.append(photo)
        if len(batch) == count:
            yield batch
            batch = []
    if batch:
        yield batch


def _write_pictures(task: Task, photo: Photo, result: Segmented, stem: Path) -> None:
    plain = [0] if task.protocol.background_threshold is not None else []
    palette = task.palette
    indexed_mask(full_size(result.labels, photo.size), palette).save(f"{stem}.mask.png")
    Image.fromarray(photo.shown).save(f"{stem}.photo.jpg", quality=_QUALITY)
    present = [int(number) for number in np.argsort(result.shares)[::-1] if result.shares[number] > 0]
    legend = [(task.names[number], palette[number]) for number in present if number not in plain]
    with_legend(blended(photo.shown, result.labels, palette, plain), legend).save(
        f"{stem}.classes.jpg", quality=_QUALITY
    )
    last = result.groups[-1]
    groups = [
        (f"{number + 1}: {task.names[name + len(plain)]}", colours(number + 1)[number])
        for number, name in enumerate(result.group_classes)
        if (last == number).any()
    ]
    picture = blended(photo.shown, last, colours(len(result.group_classes)))
    with_legend(picture, groups).save(f"{stem}.groups.jpg", quality=_QUALITY)
    Image.fromarray(group_picture(photo.shown, result.groups[0])).save(f"{stem}.stage1.jpg", quality=_QUALITY)


def _entry(photo: Photo, result: Segmented, name: str) -> PageEntry:
    pictures = [
        ("photo", "photo"),
        ("classes", "classes"),
        ("groups", "groups"),
        ("groups of stage 1", "stage1"),
    ]
    return PageEntry(
        name=str(photo.path),
        size=photo.size,
        pictures=[(caption, f"{name}.{kind}.jpg") for caption, kind in pictures],
        mask=f"{name}.mask.png",
        shares=result.shares.tolist(),
    )


def _tell(entry: PageEntry, names: Sequence[str], number: int, total: int, started: float) -> None:
    """One line: how far, which photo, which classes and how much of it."""
    order = np.argsort(entry.shares)[::-1]
    shares = ", ".join(f"{names[n]} {entry.shares[n]:.1%}" for n in order if entry.shares[n] >= SHOWN_SHARE)
    seconds = time.monotonic() - started
    left = "" if number == total else f", {seconds / number * (total - number):.0f} s left"
    print(f"[{number}/{total}, {number / seconds:.1f}/s{left}] {entry.name}: {shares}", flush=True)


def _plain(entry: PageEntry, names: Sequence[str]) -> dict[str, Any]:
    return {
        "file": entry.name,
        "height": entry.size[0],
        "width": entry.size[1],
        "mask": entry.mask,
        "shares": {name: round(share, 6) for name, share in zip(names, entry.shares, strict=True)},
    }


def _write_page(
    out: Path, task: Task, entries: Sequence[PageEntry], failures: Sequence[str], checkpoint: str
) -> None:
    protocol = task.protocol
    facts = [
        ("checkpoint", Path(checkpoint).name),
        ("window", str(protocol.window)),
        ("stride", str(protocol.stride)),
    ]
    if protocol.background_threshold is not None:
        facts.append(("background below", f"{protocol.background_threshold:g}"))
    if len(entries) > _PAGE_PHOTOS:
        facts.append(("photos", f"the first {_PAGE_PHOTOS:,} of {len(entries):,}"))
    page = out / "index.html"
    write_segment_page(page, entries[:_PAGE_PHOTOS], task.names, task.palette, facts, failures)


def _write_results(
    out: Path,
    task: Task,
    entries: Sequence[PageEntry],
    failures: Sequence[str],
    checkpoint: str,
    seconds: float,
) -> None:
    results = {
        "checkpoint": checkpoint,
        "checkpoint_sha256": file_hash(checkpoint),
        "classes": list(task.names),
        "protocol": asdict(task.protocol),
        "seconds": round(seconds, 2),
        "photos": [_plain(entry, task.names) for entry in entries],
        "not_read": list(failures),
    }
    write_whole(out / "results.json", json.dumps(results, indent=1) + "\n")


def _wanted(options: argparse.Namespace) -> tuple[list[str], float | None]:
    """Class names without the background, and its threshold if there is one; all options are looked at."""
    for name in ("short_side", "window", "stride", "top", "max_windows"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be 1 or more")
    if options.template.count("{}") != 1:
        raise UserError(f"--template '{options.template}': must hold {{}} once, for the class")
    names = read_class_words(options.classes, "--classes")
    threshold = options.background_threshold
    if threshold is not None and not 0 < threshold <= 1:
        raise UserError(f"--background-threshold {threshold:g}: must be above 0 and at most 1")
    if names[0] == BACKGROUND and threshold is None:
        threshold = _THRESHOLD
    return without_background(names, "--classes"), threshold


def _protocol(options: argparse.Namespace, image_size: int, threshold: float | None) -> Protocol:
    """GroupViT's sizes in proportion to the model's image size, with what the command line says."""
    base = scaled(Protocol(background_threshold=threshold, template=options.template), image_size)
    given = {name: getattr(options, name) for name in ("short_side", "window", "stride", "top")}
    protocol = replace(base, **{name: value for name, value in given.items() if value is not None})
    if protocol.stride > protocol.window:
        raise UserError(
            f"--stride {protocol.stride} is more than the window, {protocol.window}: pixels in between would be left out"
        )
    return replace(protocol, long_side=max(protocol.long_side, protocol.short_side))


def _device(name: str) -> str:
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; write cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.segment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("photos", type=expand_home, nargs="+", help="files, folders, quoted patterns")
    add("--checkpoint", type=expand_home, required=True, help="weight file or training checkpoint")
    add(
        "--classes",
        type=expand_home,
        required=True,
        help='"dog, grass, sky", or a file: one class a line, or JSON',
    )
    add(
        "--out",
        type=expand_home,
        default="workspace/segment",
        help="folder of the page and the pictures (%(default)s)",
    )
    add("--background-threshold", type=float, metavar="T",
        help="pixels whose best class scores below min(T, the window's best) stay background; 0.95 for few classes, "
        "less for many")  # fmt: skip
    add("--short-side", type=int, help="photos are resized to it for the model (2 x the model's image size)")
    add("--window", type=int, help="side of the windows over the photo (2 x the model's image size)")
    add("--stride", type=int, help="step between windows (the model's image size)")
    add("--top", type=int, help="classes kept in a window (5)")
    add("--template", default=Protocol.template, help="the sentence that a class is put into (%(default)s)")
    add(
        "--max-windows",
        type=int,
        help="windows through the model at once (on a GPU 32, else 4 of 448 pixels)",
    )
    add(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs (%(default)s)"
    )
    return parser


if __name__ == "__main__":
    run_entry(main)
