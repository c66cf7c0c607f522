"""How much of the semantic gap the archives close, measured against the drawn scenes' truth.

The gap (paper, section 1): a caption names few of the things that its picture shows. A label is *visible* in a
picture when truth.jsonl lists it; the caption recalls the labels under "named", an archive those that its concepts
name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.errors import UserError

__all__ = ["label_of", "measure_gap", "read_truth"]


@dataclass(frozen=True)
class Truth:
    """Labels that a picture shows, and those that its caption names."""

    visible: frozenset[str]
    named: frozenset[str]


def read_truth(path: str | Path) -> dict[str, Truth]:
    """key -> truth, from truth.jsonl.

    Raises:
        UserError: no such file, or not what demo.generate writes.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return {row["key"]: Truth(frozenset(row["labels"]), frozenset(row["named"])) for row in rows}
    except FileNotFoundError:
        raise UserError(f"report.truth={path}: no such file; write it with python -m demo.generate") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"report.truth={path}: not a truth file of demo.generate: {error}") from None


def _form_labels(path: str | Path) -> dict[str, str]:
    """Surface form -> label, from concepts.json."""
    try:
        forms = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; it stands beside truth.jsonl in what demo.generate writes"
        ) from None
    return {form: label for label, words in forms.items() for form in words}


def label_of(concept: str, form_labels: Mapping[str, str]) -> str | None:
    """The label that ``concept`` names: by itself, or by its last words ("red car" is a car), the longest that fit.

    None for concepts that name no label, such as "picture" or "day".
    """
    words = concept.split()
    for start in range(len(words)):
        label = form_labels.get(" ".join(words[start:]))
        if label is not None:
            return label
    return None


def _recall(found: Iterable[str | None], visible: frozenset[str]) -> float:
    return len(visible.intersection(found)) / len(visible)


def measure_gap(
    archives: Iterable[tuple[str, Sequence[str]]], truth_path: str | Path, concepts_path: str | Path
) -> dict[str, float]:
    """Compare captions and archives with the truth.

    Args:
        archives: (key, concepts best first) of each pair. Keys that the truth lacks are passed over; pairs of the
            truth without an archive here are not counted (the jobs' own row counts show losses).
        truth_path: truth.jsonl. concepts_path: concepts.json, label -> singular forms.

    Returns:
        Means over the pairs, each between 0 and 1:
        caption_recall: share of the visible labels that the caption names.
        archive_recall_at_3, archive_recall_at_5: share of the visible labels that at least one of the first 3 (5)
            concepts names; an empty archive recalls nothing.
        archive_precision_at_3: share of the first 3 concepts that name a visible label. Concepts that are no label
            at all ("picture", "day") take up a place and count as wrong; two forms of one visible label ("dog",
            "puppy") are both right. A shorter archive is divided by its own length, an empty one is left out.

    Raises:
        UserError: a file is missing or no key of the archives is in the truth.
    """
    truth, form_labels = read_truth(truth_path), _form_labels(concepts_path)
    caption, at_3, at_5, precision = [], [], [], []
    for key, concepts in archives:
        pair = truth.get(key)
        if pair is None or not pair.visible:
            continue
        labels = [label_of(concept, form_labels) for concept in concepts[:5]]
        caption.append(_recall(pair.named, pair.visible))
        at_3.append(_recall(labels[:3], pair.visible))
        at_5.append(_recall(labels, pair.visible))
        if labels:
            precision.append(sum(label in pair.visible for label in labels[:3]) / len(labels[:3]))
    if not caption:
        raise UserError(
            f"report.truth={truth_path}: none of its keys is among the archives: is it of another corpus?"
        )
    return {
        "caption_recall": _mean(caption),
        "archive_recall_at_3": _mean(at_3),
        "archive_recall_at_5": _mean(at_5),
        "archive_precision_at_3": _mean(precision),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
