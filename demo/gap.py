"""How much of the semantic gap the archives close, measured against the drawn scenes' truth.

The gap (paper, section 1): a caption names few of the things that its picture shows. A label is *visible* in a
picture when truth.jsonl lists it; the caption recalls the labels under "named", an archive those that its concepts
name. The measure itself is evaluation.semantic_gap.comparison's; `python -m evaluation.semantic_gap` shows all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from configs.errors import UserError
from evaluation.semantic_gap.comparison import measure_gap as compare
from evaluation.semantic_gap.labels import LabelMatcher, read_synonyms
from evaluation.semantic_gap.truth import build_truth, read_pictures

__all__ = ["measure_gap"]


def measure_gap(
    archives: Iterable[tuple[str, Sequence[str]]], truth_path: str | Path, concepts_path: str | Path
) -> dict[str, float]:
    """Compare captions and archives with the truth.

    Args:
        archives: (key, concepts best first) of each pair. Keys that the truth lacks are passed over; pairs of the
            truth without an archive here are not counted (the jobs' own row counts show losses).
        truth_path: truth.jsonl. concepts_path: concepts.json, label -> words for it.

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
    lists = dict(archives)
    pictures = [picture for picture in read_pictures(truth_path) if picture.key in lists]
    if not any(picture.labels for picture in pictures):
        raise UserError(
            f"report.truth={truth_path}: none of its keys is among the archives: is it of another corpus?"
        )
    forms = read_synonyms(concepts_path)
    labels = {label for picture in pictures for label in (picture.labels or ())}
    matcher = LabelMatcher(sorted(labels | set(forms)), forms)
    gap = compare(build_truth(pictures, matcher), matcher, {"archive": lists}, depth=5)
    measures = gap.archives[0].visible
    return {
        "caption_recall": gap.caption_recall or 0.0,
        "archive_recall_at_3": float(measures.recall[2]),
        "archive_recall_at_5": float(measures.recall[4]),
        "archive_precision_at_3": float(measures.precision[2]),
    }
