"""Zero-shot classification of pictures in folders, one folder a class.

  python -m evaluation.classify --checkpoint C --data FOLDER

A class is called like its folder ("tabby_cat" is a "tabby cat"), or as --names says: a JSON file
{"n02123045": "tabby cat", ...}, or a list of names (one a line, or JSON) in the order of the folders. Each name is put into CLIP's 80 templates for ImageNet; the mean of the
normalised text features stands for the class. A picture is resized to 8/7 of the model's image size on its short
side and cut to the middle square, as GroupViT's authors do it; its class is the nearest in the common space.

Prints top-1 and top-5 accuracy, writes results.json with them for each class. Pictures that cannot be read are named
and counted; the exit code is then 1.

Example:
  python -m evaluation.classify --checkpoint best.pt --data imagenet/val --names imagenet_names.json --batch 256
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from configs.errors import UserError, run_entry
from configs.json_files import read_json
from configs.output_folder import make_output_folder, told_when_full, write_whole
from configs.paths import expand_home
from evaluation.class_lists import check_class_names, read_class_list
from evaluation.photos import SUFFIXES, read_picture
from evaluation.results import file_hash
from models.groupvit import GroupViT
from models.pixels import normalise
from models.templates import PROMPT_TEMPLATES
from models.tokenize import tokenize, trim
from models.weights import load_model

__all__ = ["Sample", "class_features", "classify", "find_samples", "main", "square"]

_TOP = 5
_TEXTS_A_BATCH = 512
_RESIZE = 8 / 7  # 256 for 224
_SAY_EVERY = 10.0  # seconds


@dataclass(frozen=True)
class Sample:
    """A picture and the number of its class."""

    path: Path
    label: int


def find_samples(
    folder: str | Path, names: dict[str, str] | Sequence[str] | None = None
) -> tuple[list[str], list[Sample]]:
    """Class names, and the pictures below each class's folder; classes in the order of their folders.

    Args:
        folder: holds one folder a class; hidden ones are passed over.
        names: folder -> name, or names in the order of the folders; None takes the folders' names with spaces for
            underscores.

    Raises:
        UserError: no such folder, no class in it, a class without pictures or without a name, two names alike.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"--data {root}: no such folder; it must hold one folder of pictures for each class")
    classes = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise UserError(f"--data {root}: no folder in it; it must hold one folder of pictures for each class")
    words = _named([path.name for path in classes], names, root)
    check_class_names(words, f"--data {root}" if names is None else "--names")
    samples = []
    for label, path in enumerate(classes):
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not files:
            raise UserError(
                f"{path}: no picture (jpg, png, webp, gif, bmp, tiff) in it; add some or remove the folder"
            )
        samples.extend(Sample(file, label) for file in files)
    return words, samples


def _named(folders: Sequence[str], names: dict[str, str] | Sequence[str] | None, root: Path) -> list[str]:
    """The class of each folder."""
    if names is None:
        return [folder.replace("_", " ") for folder in folders]
    if not isinstance(names, dict):
        if len(names) != len(folders):
            raise UserError(
                f"--names: {len(names)} names for {len(folders)} folders of {root}; write one a folder"
            )
        return list(names)
    missing = [folder for folder in folders if folder not in names]
    if missing:
        raise UserError(
            f"--names: {len(missing)} folders of {root} are not in it, first '{missing[0]}'; add them"
        )
    return [names[folder] for folder in folders]


@torch.no_grad()
def class_features(
    model: GroupViT, names: Sequence[str], templates: Sequence[str] = PROMPT_TEMPLATES
) -> torch.Tensor:
    """n names -> (n, E), rows L2-normalised: the mean over the templates of the normalised text features."""
    device = next(model.parameters()).device
    texts = [template.format(name) for name in names for template in templates]
    parts = []
    for start in range(0, len(texts), _TEXTS_A_BATCH):
        tokens = trim(tokenize(texts[start : start + _TEXTS_A_BATCH], model.config.context_length))
        parts.append(functional.normalize(model.encode_text(tokens.to(device)), dim=-1))
    means = torch.cat(parts).unflatten(0, (len(names), len(templates))).mean(dim=1)
    return functional.normalize(means, dim=-1)


def square(path: Path, side: int) -> np.ndarray:
    """uint8 (side, side, 3): the short side resized to 8/7 of ``side`` (bicubic), the middle cut out.

    Raises:
        UserError: the picture cannot be read.
    """
    short_side = round(side * _RESIZE)
    picture = Image.fromarray(read_picture(path, short_side=short_side))
    scale = short_side / min(picture.size)
    whole = [round(length * scale) for length in picture.size]
    # Only the middle is computed: of a panorama the rest may be most of it.
    spans = [
        (round((size - side) / 2) * length / size, (round((size - side) / 2) + side) * length / size)
        for size, length in zip(whole, picture.size, strict=True)
    ]
    box = (spans[0][0], spans[1][0], spans[0][1], spans[1][1])
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC, box=box))


@torch.no_grad()
def classify(
    model: GroupViT, samples: Sequence[Sample], texts: torch.Tensor, batch: int = 64, threads: int = 4
) -> tuple[np.ndarray, list[str]]:
    """The nearest classes of each picture, and what could not be read.

    Args:
        model: in evaluation mode. samples: the pictures.
        texts: (C, E) of :func:`class_features`.
        batch: pictures a forward pass, no influence on the result. threads: that decode beside it.

    Returns:
        int64 (n, min(5, C)), best first, -1 for pictures that could not be read; sentences about those.
    """
    top = min(_TOP, len(texts))
    answers = np.full((len(samples), top), -1, np.int64)
    failures: list[str] = []
    progress = _Progress(len(samples))
    with ThreadPoolExecutor(threads) as pool:
        for numbers, pixels in _batches(pool, samples, model.config.image_size, batch, failures):
            if len(pixels):
                images = normalise(torch.from_numpy(np.stack(pixels)).to(texts.device))
                pooled = functional.normalize(model.encode_image(images, with_maps=False).pooled, dim=-1)
                readable = [number for number in numbers if number >= 0]
                answers[readable] = (pooled @ texts.T).topk(top, dim=-1).indices.cpu().numpy()
            progress.advance(len(numbers))
    return answers, failures


def _batches(
    pool: ThreadPoolExecutor, samples: Sequence[Sample], side: int, batch: int, failures: list[str]
) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Numbers of the samples (-1 for unreadable ones) and squares of the readable ones; one batch is read ahead."""

    def read(number: int) -> tuple[int, np.ndarray | str]:
        try:
            return number, square(samples[number].path, side)
        except UserError as error:
            return number, str(error)

    rest = iter(range(len(samples)))
    ahead = [pool.submit(read, number) for number in islice(rest, batch)]
    while ahead:
        current, ahead = ahead, [pool.submit(read, number) for number in islice(rest, batch)]
        numbers, pixels = [], []
        for number, found in (job.result() for job in current):
            if isinstance(found, str):
                failures.append(found)
                print(f"not read: {found}", file=sys.stderr, flush=True)
                numbers.append(-1)
            else:
                numbers.append(number)
                pixels.append(found)
        yield numbers, pixels


class _Progress:
    """A line now and then: how many, how fast, how long still."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._started = self._said = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._said > _SAY_EVERY:
            self._said = now
            rate = self._done / (now - self._started)
            left = (self._total - self._done) / rate
            print(f"{self._done:,} of {self._total:,} pictures, {rate:.0f}/s, {left:.0f} s left", flush=True)


def summarise(names: Sequence[str], labels: np.ndarray, answers: np.ndarray) -> dict[str, Any]:
    """Accuracies over all pictures that were read and for each class, shares between 0 and 1.

    Args:
        names: of the C classes. labels: int (n,). answers: of :func:`classify`.
    """
    read = answers[:, 0] >= 0
    first = answers[:, 0] == labels
    among = (answers == labels[:, None]).any(axis=1)
    classes = []
    for number, name in enumerate(names):
        own = read & (labels == number)
        wrong = Counter(answers[own & ~first, 0].tolist()).most_common(3)
        classes.append(
            {
                "name": name,
                "pictures": int(own.sum()),
                "top1": float(first[own].mean()) if own.any() else None,
                "top5": float(among[own].mean()) if own.any() else None,
                "mistaken_for": {names[other]: count for other, count in wrong},
            }
        )
    known = [entry["top1"] for entry in classes if entry["top1"] is not None]
    return {
        "pictures": int(read.sum()),
        "top1": float(first[read].mean()) if read.any() else None,
        "top5": float(among[read].mean()) if read.any() else None,
        "mean_class_top1": float(np.mean(known)) if known else None,
        "classes": classes,
    }


def main(argv: list[str]) -> int:
    """The entry; returns 0, or 1 if a picture could not be read."""
    options = _parser().parse_args(argv)
    for name in ("batch", "threads"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)}: must be 1 or more")
    names, samples = find_samples(options.data, _read_names(options.names) if options.names else None)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, _ = load_model(options.checkpoint, device)
    out = make_output_folder(options.out, "--out")
    print(
        f"{len(samples):,} pictures of {len(names):,} classes, {len(PROMPT_TEMPLATES)} templates each, on {device}",
        flush=True,
    )
    started = time.monotonic()
    texts = class_features(model, names)
    answers, failures = classify(model, samples, texts, options.batch, options.threads)
    seconds = time.monotonic() - started
    found = summarise(names, np.array([sample.label for sample in samples]), answers)
    results = {
        "checkpoint": options.checkpoint,
        "checkpoint_sha256": file_hash(options.checkpoint),
        "data": options.data,
        "seconds": round(seconds, 2),
        **found,
        "not_read": failures,
    }
    with told_when_full(out, "--out"):
        write_whole(out / "results.json", json.dumps(results, indent=1) + "\n")
    _show(found, options.per_class)
    print(f"{len(samples) / seconds:.0f} pictures a second; results: {out / 'results.json'}", flush=True)
    if failures:
        print(
            f"{len(failures)} of {len(samples)} pictures could not be read; they are named above",
            file=sys.stderr,
        )
    return 1 if failures else 0


def _show(found: dict[str, Any], per_class: bool) -> None:
    if found["top1"] is None:
        print("no picture could be read")
        return
    if per_class:
        wide = max(len(entry["name"]) for entry in found["classes"])
        for entry in found["classes"]:
            shares = "  ".join("     -" if entry[k] is None else f"{entry[k]:6.1%}" for k in ("top1", "top5"))
            mistaken = ", ".join(f"{name} {count}" for name, count in entry["mistaken_for"].items())
            print(f"{entry['name']:{wide}}  {entry['pictures']:6,}  {shares}  {mistaken}")
    print(
        f"top-1 {found['top1']:.2%}, top-5 {found['top5']:.2%}, mean of the classes' top-1 {found['mean_class_top1']:.2%}"
    )


def _read_names(path: str) -> dict[str, str] | list[str]:
    """Names by folder from a JSON object, else a list."""
    names = read_json(path, "--names") if Path(path).suffix.lower() == ".json" else None
    if not isinstance(names, dict):
        return read_class_list(path, "--names")
    if not all(isinstance(name, str) for name in names.values()):
        raise UserError(f'--names {path}: must be {{"folder": "name", ...}}, or a list of names')
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.classify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", type=expand_home, required=True, help="weight file or training checkpoint")
    add("--data", type=expand_home, required=True, help="folder with one folder of pictures for each class")
    add(
        "--names",
        type=expand_home,
        help='JSON file {"folder": "name", ...}, or a list in the order of the folders',
    )
    add("--out", type=expand_home, default="workspace/classify", help="folder of results.json (%(default)s)")
    add("--per-class", action="store_true", help="print every class with what it is mistaken for")
    add("--batch", type=int, default=64, help="pictures a forward pass (%(default)s)")
    add("--threads", type=int, default=4, help="threads that decode (%(default)s)")
    return parser


if __name__ == "__main__":
    run_entry(main)
