"""What pictures show and what their captions name of it: the truth that archives are measured against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import UserError
from configs.json_files import read_json_lines
from evaluation.semantic_gap.labels import LabelMatcher

__all__ = ["Picture", "Truth", "build_truth", "read_captions", "read_pictures", "with_captions"]


@dataclass(frozen=True)
class Picture:
    """One picture as it was read.

    labels is None where only captions tell what is visible; areas are shares of the picture, parallel to
    labels; named are the labels that the caption is known to name (None: its words tell).
    """

    key: str
    labels: tuple[str, ...] | None = None
    areas: tuple[float, ...] | None = None
    named: tuple[str, ...] | None = None
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Truth:
    """V visible labels of n pictures, as parallel arrays sorted by picture.

    rows int64 (V,): number of the picture in keys. label_ids int64 (V,). areas float64 (V,), share of the picture,
    or None. named bool (V,): the picture's own caption names it. named_by_any bool (V,): any of its captions
    does, or None where there is one caption or captions are the truth. said int64, sorted: row * len(labels) +
    label of everything that a caption names, visible or not.
    """

    keys: tuple[str, ...]
    labels: tuple[str, ...]
    rows: np.ndarray
    label_ids: np.ndarray
    areas: np.ndarray | None
    named: np.ndarray | None
    named_by_any: np.ndarray | None
    said: np.ndarray

    @property
    def codes(self) -> np.ndarray:
        """int64 (V,), rising: row * len(labels) + label of every visible label."""
        return self.rows * len(self.labels) + self.label_ids

    def visible(self, wanted: np.ndarray) -> Truth:
        """The truth with only some of the visible labels; ``wanted`` bool (V,)."""
        optional = {
            name: None if getattr(self, name) is None else getattr(self, name)[wanted]
            for name in ("areas", "named", "named_by_any")
        }
        return replace(self, rows=self.rows[wanted], label_ids=self.label_ids[wanted], **optional)


def read_pictures(path: str | Path, key_field: str = "key") -> list[Picture]:
    """From JSON lines: {key, labels, areas?, named?, caption(s)?} or {key, captions, caption?}.

    areas: shares of the picture, or pixels with width and height; pixels alone count as shares of their sum.

    Raises:
        UserError: the file or a line of it cannot be used (with its number).
    """
    pictures = [_picture(row, where, key_field) for where, row in read_json_lines(path, "truth")]
    _refuse_doubles([picture.key for picture in pictures], path)
    bare = [picture for picture in pictures if picture.labels is None and not picture.captions]
    if bare:
        raise UserError(
            f"{path}: '{bare[0].key}' has neither 'labels' nor 'captions'; give each line one of them"
        )
    kinds = {picture.labels is None for picture in pictures}
    if len(kinds) > 1:
        raise UserError(f"{path}: some lines have 'labels' and some do not; give all of them or none")
    return pictures


def read_captions(path: str | Path, key_field: str = "key") -> dict[str, tuple[str, ...]]:
    """key -> captions, the picture's own first, from JSON lines {key, caption} or {key, captions}.

    Raises:
        UserError: as :func:`read_pictures`.
    """
    pairs = [
        (_key(row, where, key_field), _captions(row, where))
        for where, row in read_json_lines(path, "--captions")
    ]
    _refuse_doubles([key for key, _ in pairs], path)
    return dict(pairs)


def with_captions(
    pictures: Sequence[Picture], captions: Mapping[str, tuple[str, ...]], stems: bool = False
) -> list[Picture]:
    """The pictures with captions of another file; with ``stems`` keys are compared as file names without ending.

    Raises:
        UserError: no key is in both.
    """
    known = {Path(key).stem if stems else key: texts for key, texts in captions.items()}
    joined = [replace(picture, captions=known.get(picture.key, picture.captions)) for picture in pictures]
    if not any(picture.key in known for picture in pictures):
        keys = f"'{next(iter(known), '')}' there, '{pictures[0].key}' in the truth"
        raise UserError(
            f"--captions: none of its keys is in the truth ({keys}); say --key FIELD if it is another field"
        )
    return joined


def build_truth(pictures: Sequence[Picture], matcher: LabelMatcher) -> Truth:
    """Compare captions with labels, or, where there are no labels, captions with each other.

    A picture's caption is its first. Without labels, visible is what all its captions name. Labels are those of
    ``matcher``, which must know all that the pictures have.
    """
    ids = {label: number for number, label in enumerate(matcher.labels)}
    by_words = _named_labels(pictures, matcher)
    own = [
        frozenset(ids[name] for name in picture.named)
        if picture.named is not None
        else (names[0] if names else frozenset())
        for picture, names in zip(pictures, by_words, strict=True)
    ]
    every = [frozenset().union(said, *names) for said, names in zip(own, by_words, strict=True)]
    from_labels = pictures[0].labels is not None
    visible = [
        {ids[label]: place for place, label in enumerate(picture.labels)}
        if picture.labels is not None
        else dict.fromkeys(said)
        for picture, said in zip(pictures, every, strict=True)
    ]
    entries = [
        (row, label, visible[row][label]) for row in range(len(pictures)) for label in sorted(visible[row])
    ]
    rows = np.array([row for row, _, _ in entries], np.int64)
    label_ids = np.array([label for _, label, _ in entries], np.int64)
    codes = rows * len(matcher.labels) + label_ids
    has_caption = any(picture.captions or picture.named is not None for picture in pictures)
    several = from_labels and any(len(picture.captions) > 1 for picture in pictures)
    said = _codes(own, len(matcher.labels))
    return Truth(
        keys=tuple(picture.key for picture in pictures),
        labels=matcher.labels,
        rows=rows,
        label_ids=label_ids,
        areas=_areas(pictures, entries) if all(picture.areas is not None for picture in pictures) else None,
        named=np.isin(codes, said) if has_caption else None,
        named_by_any=np.isin(codes, _codes(every, len(matcher.labels))) if several else None,
        said=said,
    )


def _named_labels(pictures: Sequence[Picture], matcher: LabelMatcher) -> list[list[frozenset[int]]]:
    """The labels of every caption of every picture."""
    flat = iter(matcher.in_captions([text for picture in pictures for text in picture.captions]))
    return [[next(flat) for _ in picture.captions] for picture in pictures]


def _codes(sets: Sequence[frozenset[int]], labels: int) -> np.ndarray:
    return np.array(
        sorted(row * labels + label for row, names in enumerate(sets) for label in names), np.int64
    )


def _areas(pictures: Sequence[Picture], entries: Sequence[tuple[int, int, Any]]) -> np.ndarray:
    return np.array([pictures[row].areas[place] for row, _, place in entries], np.float64)  # type: ignore[index]


def _picture(row: dict[str, Any], where: str, key_field: str) -> Picture:
    labels = _texts(row, "labels", where)
    if labels is not None and len(set(labels)) < len(labels):
        raise UserError(f"{where}: a label stands twice in 'labels'")
    return Picture(
        key=_key(row, where, key_field),
        labels=labels,
        areas=_shares(row, where, len(labels)) if labels is not None and "areas" in row else None,
        named=_texts(row, "named", where),
        captions=_captions(row, where) if "caption" in row or "captions" in row else (),
    )


def _key(row: dict[str, Any], where: str, field: str) -> str:
    value = row.get(field)
    if not isinstance(value, (str, int)) or value == "":
        raise UserError(f"{where}: no '{field}' in it; say --key FIELD if the key has another name")
    return str(value)


def _captions(row: dict[str, Any], where: str) -> tuple[str, ...]:
    """The own caption first; it may stand a second time among the captions."""
    texts = _texts(row, "captions", where) or ()
    own = row.get("caption")
    if own is None:
        if not texts:
            raise UserError(f"{where}: neither 'caption' nor 'captions' in it")
        return texts
    if not isinstance(own, str):
        raise UserError(f"{where}: 'caption' must be a text, found {str(own)[:60]}")
    return (own, *(text for text in texts if text != own))


def _texts(row: dict[str, Any], field: str, where: str) -> tuple[str, ...] | None:
    values = row.get(field)
    if values is None:
        return None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UserError(f"{where}: '{field}' must be a list of texts, found {str(values)[:60]}")
    return tuple(values)


def _shares(row: dict[str, Any], where: str, count: int) -> tuple[float, ...]:
    values = row["areas"]
    if (
        not isinstance(values, list)
        or len(values) != count
        or not all(isinstance(value, (int, float)) and value >= 0 for value in values)
    ):
        raise UserError(f"{where}: 'areas' must have one number, 0 or more, for each label")
    if all(value <= 1 for value in values):
        return tuple(map(float, values))
    size = row["width"] * row["height"] if "width" in row and "height" in row else sum(values)
    return tuple(value / size for value in values)


def _refuse_doubles(keys: Sequence[str], path: str | Path) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise UserError(f"{path}: the key '{key}' stands twice; give each picture one line")
        seen.add(key)
