"""Zero-shot segmentation of a checkpoint on benchmarks, or on one's own data in PASCAL VOC's layout.

Names: voc, context, coco_object, imagenet_s_50, imagenet_s_300, cityscapes, ade20k, coco_stuff (the eight of the
paper: 'all'), voc20 and context59 (without background), folder (one's own data, with --classes).

  python -m evaluation.evaluate --checkpoint groupvit.pt --benchmark voc,ade20k --data /data
  python -m evaluation.evaluate --checkpoint groupvit.pt --benchmark folder --data scenes --classes classes.txt
  python -m evaluation.evaluate --checkpoint a.pt b.pt c.pt --benchmark voc --data /data --pictures 12

Every file is looked for before the model is loaded. OUT gets index.html, results.json, miou.png, the pixels of each
true class by predicted class (CSV) and, on request, pictures; of several checkpoints, each in a folder of its own.
Layouts and the protocol are in docs/evaluation.md. It uses a GPU where there is one.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError, run_entry
from configs.output_folder import make_output_folder, told_when_full
from configs.paths import expand_home
from evaluation.benchmarks.catalogue import FOLDER, Benchmark
from evaluation.benchmarks.chosen import Choice, choose, sized
from evaluation.compared import Subject, name_checkpoints, only_first_class, write_together

if TYPE_CHECKING:
    from evaluation.benchmarks.runs import Job

__all__ = ["evaluate", "main"]

_GPU_BATCH = 8
_GPU_WORKERS = 4


def main(argv: list[str]) -> int:
    """Command line; 0, or 2 after one line for a mistake."""
    options = _parser().parse_args(argv)
    with told_when_full(options.out, "--out"):
        evaluate(options)
    return 0


def evaluate(options: argparse.Namespace) -> list[dict[str, Any]] | None:
    """Check, run, report. Returns what results.json holds, for each checkpoint; None in a process that is not the first.

    Raises:
        UserError: anything the user can mend, before the model is loaded wherever it can be known then.
    """
    _check_numbers(options)
    choice = _choice(options)
    placed = choose(choice)
    subjects = [
        Subject(path, name, Path(options.out) / folder, _model_config(path))
        for path, name, folder in name_checkpoints(options.checkpoint)
    ]
    finals = [sized(placed, subject.image_size, choice) for subject in subjects]
    make_output_folder(options.out, "--out")
    # slow to import, so after what is cheap to check
    from evaluation.benchmarks.processes import join_torchrun, leave_torchrun, run_processes
    from evaluation.benchmarks.runs import class_names, run_job

    for benchmark in placed:
        class_names(benchmark)
    rank, count = join_torchrun()
    several = count == 1 and options.processes > 1
    entries = []
    for subject, final in zip(subjects, finals, strict=True):
        job = _job(subject, final, options)
        entries.append(run_processes(job, options.processes) if several else run_job(job))
    leave_torchrun()
    return _report(options, subjects, max(count, options.processes), entries) if rank == 0 else None


def _choice(options: argparse.Namespace) -> Choice:
    given = {entry.name: getattr(options, entry.name) for entry in dataclasses.fields(Choice)}
    return Choice(**{**given, "partial": options.partial or options.limit is not None})


def _model_config(checkpoint: str) -> dict[str, Any]:
    from models.weights import read_weight_file

    return dict(read_weight_file(checkpoint, mapped=True)["config"])


def _job(subject: Subject, benchmarks: tuple[Benchmark, ...], options: argparse.Namespace) -> Job:
    import torch

    from evaluation.benchmarks.runs import Job

    on_gpu = torch.cuda.is_available()
    return Job(
        checkpoint=subject.path,
        benchmarks=benchmarks,
        out=subject.folder,
        max_windows=options.max_windows,
        batch=options.batch or (_GPU_BATCH if on_gpu else 1),
        workers=options.workers if options.workers is not None else (_GPU_WORKERS if on_gpu else 0),
        precision=options.precision,
        limit=options.limit,
        pictures=options.pictures,
    )


def _check_numbers(options: argparse.Namespace) -> None:
    for name in ("processes", "batch", "max_windows", "limit", "short_side", "window", "stride"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')}: {value} is too small; write 1 or more")
    threshold = options.background_threshold
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"--background-threshold: {threshold} is not between 0 and 1")


def _report(
    options: argparse.Namespace,
    subjects: Sequence[Subject],
    processes: int,
    runs: Sequence[list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Files and tables; the figures are written before what is wrong with the data is said."""
    from evaluation.results import class_table, summarise, summary_table

    one_class = [entry for entry in runs[0] if entry["name"] == FOLDER and only_first_class(entry)]
    results = []
    for subject, entries in zip(subjects, runs, strict=True):
        subject.take_matrices(entries)
        results.append(summarise(subject.path, subject.config, options.data, processes, entries))
        subject.write(results[-1])
        if len(subjects) > 1:
            print(f"\n{subject.name}")
        print(summary_table(results[-1]["benchmarks"]))
        for entry in results[-1]["benchmarks"] if options.per_class else ():
            print(f"\n{class_table(entry)}")
    print(f"\n{write_together(Path(options.out), subjects, results)}")
    _refuse_useless(results[0]["benchmarks"], one_class)
    return results


def _refuse_useless(entries: Sequence[dict[str, Any]], one_class: Sequence[dict[str, Any]]) -> None:
    empty = [entry for entry in entries if entry["images"] == 0]
    if empty:
        first = empty[0]["unreadable"][0]
        raise UserError(f"{empty[0]['title']}: not one image could be used; the first: {first}")
    if one_class:
        raise UserError(
            f"{one_class[0]['title']}: its masks hold class 0 ('{next(iter(one_class[0]['classes']))}') and 255 alone, and 255 is "
            "left out of account, so the figures mean nothing; write the other class as 1 where the masks have 255"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--checkpoint",
        type=expand_home,
        required=True,
        nargs="+",
        help="weight files or training checkpoints; several are compared",
    )
    add("--benchmark", required=True, help="names with commas between, or all")
    add(
        "--data", type=expand_home, required=True, help="folder that holds the data sets (docs/evaluation.md)"
    )
    add("--out", type=expand_home, default="evaluation-results", help="folder for the results (%(default)s)")
    add(
        "--processes",
        type=int,
        default=1,
        help="processes, each on a GPU of its own if there are (%(default)s)",
    )
    add("--per-class", action="store_true", help="print the IoU of every class, too")
    add("--limit", type=int, help="only the first N images of each benchmark: a quick look")
    add("--partial", action="store_true", help="accept a data set with fewer images than its official split")
    add(
        "--pictures",
        type=int,
        default=0,
        metavar="N",
        help="photo, truth and prediction of the first N images",
    )
    own = parser.add_argument_group("own data and other sizes (recorded in results.json)")
    own.add_argument("--classes", type=expand_home, metavar="FILE", help="names one a line, in the order of the mask ids; 'background' first"
                     " if there is one")  # fmt: skip
    own.add_argument(
        "--background-threshold", type=float, metavar="T", help="a pixel below it is background (0 to 1)"
    )
    own.add_argument("--short-side", type=int, help="of the image, in pixels (2 x the model's image size)")
    own.add_argument("--window", type=int, help="side of the windows (2 x the model's image size)")
    own.add_argument("--stride", type=int, help="step between windows (the model's image size)")
    speed = parser.add_argument_group("speed and memory (batches have no influence on the results)")
    speed.add_argument(
        "--max-windows",
        type=int,
        help="windows through the model at once (on a GPU 32, else 4 of 448 pixels)",
    )
    speed.add_argument("--batch", type=int, help="images whose windows share batches (on a GPU 8, else 1)")
    speed.add_argument("--workers", type=int, help="reader processes (on a GPU 4, else none)")
    speed.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32",
        help="bf16: the image encoder's products are faster and coarser (%(default)s)",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    run_entry(main)
