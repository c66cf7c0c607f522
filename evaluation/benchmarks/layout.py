"""The files of a benchmark, all looked for before any model is loaded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from configs.errors import UserError
from configs.text_files import read_lines
from evaluation.benchmarks.catalogue import FOLDER, Benchmark
from evaluation.photos import SUFFIXES

__all__ = ["check_layout"]


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
    dataset = {**benchmark.dataset, "data_root": str(folder)}
    if benchmark.name == FOLDER:
        dataset["files"] = _own_files(benchmark, folder, names or ())
        return replace(benchmark, dataset=dataset)
    dataset["seg_map_suffix"] = suffix = _mask_suffix(benchmark, folder)
    parts = dataset["data_prefix"]
    images = _stems(benchmark, folder / parts["img_path"], dataset["img_suffix"])
    masks = _stems(benchmark, folder / parts["seg_map_path"], suffix)
    wanted = sorted(images) if names is None else names
    _refuse_missing(benchmark, wanted, images, folder / parts["img_path"], dataset["img_suffix"], "image")
    _refuse_missing(benchmark, wanted, masks, folder / parts["seg_map_path"], suffix, "mask")
    _check_count(benchmark, folder, len(wanted), partial)
    split = len(wanted) if len(wanted) in benchmark.other_images else benchmark.images
    return replace(benchmark, dataset=dataset, images=split, names=None if names is None else tuple(names))


def _data_root(benchmark: Benchmark, root: Path) -> Path:
    """The folder of the data set; one's own data may also lie directly in ``root``."""
    if not root.is_dir():
        raise UserError(f"--data {root}: no such folder; write the one that holds {benchmark.layout}")
    direct = root / benchmark.dataset["data_prefix"]["img_path"]
    if benchmark.name == FOLDER and direct.is_dir():
        return root
    return root / benchmark.dataset["data_root"]


def _listed_names(benchmark: Benchmark, folder: Path) -> list[str]:
    """Each line a name, blank ones passed over: they shift nothing here."""
    listing = folder / benchmark.dataset["ann_file"]
    if not listing.is_file():
        raise _missing(benchmark, listing, "list of images missing")
    names = [line.strip() for line in read_lines(listing) if line.strip()]
    if not names:
        raise _missing(benchmark, listing, "no image there")
    return names


def _own_files(benchmark: Benchmark, folder: Path, names: Sequence[str]) -> list[tuple[str, str]]:
    """(image, mask) of each name; images of any format that is read, endings in any case."""
    parts = benchmark.dataset["data_prefix"]
    found = []
    for kind, part, suffixes in (
        ("image", parts["img_path"], SUFFIXES),
        ("mask", parts["seg_map_path"], {benchmark.dataset["seg_map_suffix"]}),
    ):
        files = _by_stem(benchmark, folder / part, suffixes)
        _refuse_missing(
            benchmark, names, files, folder / part, f".{{{','.join(sorted(s[1:] for s in suffixes))}}}", kind
        )
        double = next((name for name in names if len(files[name]) > 1), None)
        if double is not None:
            both = " and ".join(path.name for path in files[double])
            raise UserError(f"{folder / part}: '{double}' is {both}; leave one of them")
        found.append([str(files[name][0]) for name in names])
    return list(zip(*found, strict=True))


def _by_stem(benchmark: Benchmark, folder: Path, suffixes: Iterable[str]) -> dict[str, list[Path]]:
    """Path below the folder, without its ending -> files."""
    if not folder.is_dir():
        raise _missing(benchmark, folder, "folder missing")
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in suffixes and path.is_file():
            files[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    return files


def _mask_suffix(benchmark: Benchmark, folder: Path) -> str:
    """Ours, or that of another converter where only its files are there."""
    masks, own = (
        folder / benchmark.dataset["data_prefix"]["seg_map_path"],
        benchmark.dataset["seg_map_suffix"],
    )
    present = (
        suffix
        for suffix in (own, *benchmark.other_mask_suffixes)
        if next(masks.rglob(f"*{suffix}"), None) is not None
    )
    return next(present, own)


def _stems(benchmark: Benchmark, folder: Path, suffix: str) -> set[str]:
    if not folder.is_dir():
        raise _missing(benchmark, folder, "folder missing")
    cut = len(suffix)
    return {
        path.relative_to(folder).as_posix()[:-cut] for path in folder.rglob(f"*{suffix}") if path.is_file()
    }


def _refuse_missing(
    benchmark: Benchmark, names: Sequence[str], present: Iterable[str], folder: Path, suffix: str, kind: str
) -> None:
    known = set(present)
    missing = [name for name in names if name not in known]
    if missing:
        more = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
        raise _missing(benchmark, folder / f"{missing[0]}{suffix}", f"{kind} missing{more}")


def _check_count(benchmark: Benchmark, folder: Path, found: int, partial: bool) -> None:
    if found == 0:
        raise _missing(benchmark, folder, "no image there")
    if found not in (benchmark.images, *benchmark.other_images) and not partial:
        raise UserError(
            f"{folder}: {benchmark.title} has {benchmark.images:,} images, found {found:,}; complete it, "
            "or add --partial to evaluate what is there"
        )


def _missing(benchmark: Benchmark, path: Path, what: str) -> UserError:
    made = f"; its masks are made by: {benchmark.prepare}" if benchmark.prepare else ""
    return UserError(f"{path}: {what}; {benchmark.title} needs {benchmark.layout}{made}")
