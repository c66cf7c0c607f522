"""How much of what pictures show do their captions name, and how much do concept archives recover?

  python -m evaluation.semantic_gap --truth TRUTH [--archives TABLE ...] --out FOLDER

TRUTH is one of
  a folder of masks      PNG of class indices, with --classes classes.json and, for the captions, --captions FILE
  JSON lines             {"key": "...", "labels": ["dog", "sky"]}: what each picture shows; optional: "areas" (shares, or
                         pixels), "named" (labels that the caption names), "caption" or "captions"
  JSON lines             {"key": "...", "captions": ["...", ...]}: the first is the picture's caption, all of them
                         together tell what is visible

TABLE is a workspace of this software, a Parquet file with the columns key and concepts (best first), or JSON lines
{"key": "...", "concepts": [...]}. Several are compared; give each a name with NAME=TABLE.

Words are compared whole, singular and plural folded; --synonyms {"couch": ["sofa"], ...} adds words for a label.
Writes results.json and index.html.

Examples:
  python -m evaluation.semantic_gap --truth truth.jsonl --synonyms concepts.json --archives workspace/demo
  python -m evaluation.semantic_gap --truth masks/ --classes classes.json --captions pairs.jsonl --key file
  python -m evaluation.semantic_gap --truth captions.jsonl --archives paper=workspace/a --archives ours=workspace/b
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from configs.errors import UserError, run_entry
from configs.output_folder import make_output_folder, told_when_full, write_whole
from configs.paths import expand_home
from curation.text.vocabulary import count_batch, mostly_nouns, read_vocabulary, select
from evaluation.semantic_gap.archives import read_archives
from evaluation.semantic_gap.comparison import Gap, measure_gap
from evaluation.semantic_gap.labels import LabelMatcher, read_synonyms
from evaluation.semantic_gap.masks import read_classes, read_masks
from evaluation.semantic_gap.results import results_of, summary_of
from evaluation.semantic_gap.truth import Picture, build_truth, read_captions, read_pictures, with_captions

__all__ = ["main"]

_MIN_COUNT = 2  # captions that a mined noun must stand in


def main(argv: list[str]) -> int:
    """The entry; returns the exit code."""
    options = _parser().parse_args(argv)
    started = time.monotonic()
    edges = _edges(options.area_bins)
    tables = _tables(options.archives)
    pictures, matcher, notes = _read_truth(options, list(tables.values()))
    truth = build_truth(pictures, matcher)
    if not len(truth.rows):
        raise UserError(
            f"--truth {options.truth}: no picture shows any label; look at its classes and --min-area"
        )
    archives = {name: read_archives(address, truth.keys) for name, address in tables.items()}
    out = make_output_folder(options.out, "--out")
    skip = options.others == "skip" or (options.others is None and Path(options.truth).is_dir())
    gap = measure_gap(truth, matcher, archives, edges=edges, skip_others=skip, depth=options.depth)
    gap.notes = notes + _notes(gap, archives, skip)
    from evaluation.semantic_gap.page import write_page

    given = {name: value for name, value in vars(options).items() if name not in ("out", "truth")}
    results = results_of(gap, str(options.truth), given)
    with told_when_full(out, "--out"):
        write_whole(out / "results.json", json.dumps(results, indent=1) + "\n")
        write_page(out / "index.html", gap, archives, matcher, f"Semantic gap of {Path(options.truth).name}")
    print(summary_of(gap))
    print(f"results: {out / 'results.json'}")
    print(f"page:    {out / 'index.html'}  ({time.monotonic() - started:.1f} s)")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.semantic_gap",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--truth",
        type=expand_home,
        required=True,
        help="folder of masks, or JSON lines with labels or captions",
    )
    add(
        "--archives",
        action="append",
        default=[],
        metavar="[NAME=]TABLE",
        help="archives to measure; may be repeated",
    )
    add("--classes", type=expand_home, help="JSON file: index in the masks -> class name")
    add(
        "--captions",
        type=expand_home,
        help="JSON lines {key, caption} or {key, captions}, for masks or labels without captions",
    )
    add("--synonyms", type=expand_home, help='JSON file: {"label": ["word", ...]}')
    add(
        "--vocabulary",
        type=expand_home,
        help="where captions are the truth: the concepts to look for, one a line (default: nouns mined)",
    )
    add(
        "--key",
        default="key",
        metavar="FIELD",
        help="the field of JSON lines that holds the key (default: key)",
    )
    add(
        "--min-area",
        type=float,
        default=0.0,
        help="share of the picture a class of a mask must cover (default: 0)",
    )
    add("--area-bins", default="0.01,0.05", help="limits of the area bins, shares (default: 0.01,0.05)")
    add(
        "--others", choices=("wrong", "skip"),
        help="concepts that are no label at all: count as wrong, or are left out (default: wrong; skip for masks, "
        "whose classes are few)",
    )  # fmt: skip
    add("--depth", type=int, default=20, help="the largest k of the curves (default: 20)")
    add(
        "--out",
        type=expand_home,
        default="workspace/semantic_gap",
        help="folder of results.json and index.html",
    )
    return parser


def _edges(text: str) -> list[float]:
    try:
        edges = [float(part) for part in text.split(",")] if text else []
    except ValueError:
        edges = [-1.0]
    if edges != sorted(set(edges)) or any(not 0 < edge < 1 for edge in edges):
        raise UserError(f"--area-bins {text}: write rising shares between 0 and 1, such as 0.01,0.05")
    return edges


def _tables(arguments: Sequence[str]) -> dict[str, str]:
    """name -> address."""
    tables: dict[str, str] = {}
    for argument in arguments:
        name, named, address = argument.partition("=")
        if not named or "/" in name:
            name, address = "archive" if len(arguments) == 1 else Path(argument).stem, argument
        if name in tables:
            raise UserError(f"--archives: two tables are called '{name}'; write NAME=TABLE")
        tables[name] = expand_home(address)
    return tables


def _read_truth(
    options: argparse.Namespace, tables: Sequence[str]
) -> tuple[list[Picture], LabelMatcher, list[str]]:
    if options.depth < 1:
        raise UserError(f"--depth {options.depth}: must be 1 or more")
    path = Path(options.truth)
    if not path.exists():
        raise UserError(f"--truth {path}: no such file or folder")
    synonyms = read_synonyms(options.synonyms) if options.synonyms else {}
    if path.is_dir():
        if not options.classes:
            raise UserError(
                f"--truth {path} is a folder of masks: name their classes with --classes classes.json"
            )
        classes = read_classes(options.classes)
        pictures = read_masks(path, classes, options.min_area)
        labels = list(classes.values())
    else:
        pictures = read_pictures(path, options.key)
        labels = sorted(
            {label for picture in pictures for label in (*(picture.labels or ()), *(picture.named or ()))}
        )
        labels += sorted(set(synonyms) - set(labels)) if labels else []
    notes = []
    if options.captions:
        pictures = with_captions(pictures, read_captions(options.captions, options.key), stems=path.is_dir())
    if pictures[0].labels is None:
        return _open_truth(options, pictures, synonyms)
    unknown = sorted(set(synonyms) - set(labels))
    if unknown:
        notes.append(
            f"synonyms of {len(unknown)} names that are no class, such as '{unknown[0]}', were not used"
        )
    pictures, note = _with_caption_only(pictures)
    return pictures, LabelMatcher(labels, synonyms), notes + note


def _open_truth(
    options: argparse.Namespace, pictures: list[Picture], synonyms: dict[str, list[str]]
) -> tuple[list[Picture], LabelMatcher, list[str]]:
    """Where captions are the truth: every noun is a label."""
    several = [picture for picture in pictures if len(picture.captions) > 1]
    notes = []
    if not several:
        raise UserError(
            f"--truth {options.truth}: every picture has one caption; more than one or labels are needed"
        )
    if len(several) < len(pictures):
        notes.append(f"{len(pictures) - len(several):,} pictures with a single caption were left out")
    if options.vocabulary:
        if not Path(options.vocabulary).is_file():
            raise UserError(f"--vocabulary {options.vocabulary}: no such file")
        concepts = list(dict.fromkeys(read_vocabulary(options.vocabulary)))
    else:
        batch = count_batch([text for picture in several for text in picture.captions])
        counts = mostly_nouns(zip(*(column.to_pylist() for column in batch.columns), strict=True))
        concepts = [concept for concept, _ in select(counts, min_count=_MIN_COUNT)]
        notes.append(
            f"labels are the {len(concepts):,} nouns that {_MIN_COUNT} or more captions name; or give --vocabulary"
        )
    if not concepts:
        raise UserError(f"--truth {options.truth}: its captions share no noun; give --vocabulary FILE")
    return several, LabelMatcher(concepts, synonyms, nested=True), notes


def _with_caption_only(pictures: list[Picture]) -> tuple[list[Picture], list[str]]:
    """Where some pictures have a caption, those that have one."""
    kept = [picture for picture in pictures if picture.captions or picture.named is not None]
    if not kept or len(kept) == len(pictures):
        return pictures, []
    return kept, [f"{len(pictures) - len(kept):,} pictures of the truth have no caption and were left out"]


def _notes(gap: Gap, archives: dict[str, dict[str, list[str]]], skip: bool) -> list[str]:
    notes = []
    for result in gap.archives:
        without = len(gap.truth.keys) - len(archives[result.name])
        if without:
            notes.append(
                f"{result.name}: {without:,} of {len(gap.truth.keys):,} pictures have no archive; they are left out of its "
                "means and count as not found by area"
            )
    if archives and skip:
        notes.append(
            "concepts that are no class of the truth were left out (--others wrong counts them as wrong)"
        )
    return notes


if __name__ == "__main__":
    run_entry(main)
