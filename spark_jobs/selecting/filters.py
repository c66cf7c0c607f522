"""Filters: each says of every row of a part whether it goes. Several rows of reasons, so that each can be counted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import UserError
from configs.schema import FilterConfig
from corpora.reasons import Reason
from storage.addresses import resolve
from storage.patterns import find

__all__ = ["check_filters", "columns_of", "removed_by", "uid_numbers", "wanted_uids"]

_UID = np.dtype("u8,u8")


def check_filters(filters: FilterConfig, short_side: int, columns: Sequence[str]) -> None:
    """What can be wrong with the filters of a workspace.

    Args:
        filters: the section.
        short_side: to which ingest scaled the images: of larger ones the size is not known any more.
        columns: of `pairs` and `image_embeddings`.

    Raises:
        UserError: a filter needs a column or a package that is not there, or can keep nothing.
    """
    if filters.min_score > -1 and "image_text_score" not in columns:
        raise UserError(
            "filters.min_score needs the column image_text_score; run embed_images with embed.text_score=true "
            "(and overwrite=[image_embeddings])"
        )
    if filters.min_side > short_side:
        raise UserError(
            f"filters.min_side={filters.min_side} is above ingest.short_side={short_side}, to which images were scaled "
            "down: nothing would be left"
        )
    if filters.uids and filters.uid_column not in columns:
        raise UserError(
            f"filters.uids needs the column '{filters.uid_column}' in pairs; ingest with ingest.columns="
            f"[{filters.uid_column}], or name another one as filters.uid_column"
        )
    if filters.languages:
        known = _detector().nb_classes
        for language in filters.languages:
            if language not in known:
                raise UserError(
                    f"filters.languages: '{language}' is not known; there are {', '.join(sorted(known))}"
                )
    if filters.uids:
        wanted_uids(tuple(filters.uids))


def columns_of(filters: FilterConfig) -> tuple[list[str], list[str]]:
    """The columns that are looked at: of `pairs`, and of `image_embeddings`."""
    pairs = ["key"]
    if filters.min_side or filters.max_aspect:
        pairs += ["width", "height"]
    if filters.languages:
        pairs.append("caption")
    if filters.uids:
        pairs.append(filters.uid_column)
    return pairs, ["key"] + (["image_text_score"] if filters.min_score > -1 else [])


def removed_by(filters: FilterConfig, pairs: pa.Table, images: pa.Table) -> dict[Reason, np.ndarray]:
    """For each filter that is set, in this order, which rows it removes: bool (n,).

    Args:
        filters: the section.
        pairs: rows with the columns of :func:`columns_of`, n of them.
        images: the same pairs' rows, in the same order.
    """
    found: dict[Reason, np.ndarray] = {}
    if filters.min_score > -1:
        # (A score that is not a number is no score.)
        found[Reason.LOW_SCORE] = ~(images.column("image_text_score").to_numpy() >= filters.min_score)
    if filters.min_side or filters.max_aspect:
        width, height = (pairs.column(name).to_numpy() for name in ("width", "height"))
        short, long = np.minimum(width, height), np.maximum(width, height)
        if filters.min_side:
            found[Reason.SMALL_IMAGE] = short < filters.min_side
        if filters.max_aspect:
            found[Reason.LONG_IMAGE] = long > filters.max_aspect * short
    if filters.languages:
        captions = pairs.column("caption").to_pylist()
        found[Reason.OTHER_LANGUAGE] = _share_of(captions, filters.languages) < filters.language_share
    if filters.uids:
        uids = pairs.column(filters.uid_column).to_pylist()
        found[Reason.NOT_LISTED] = ~np.isin(uid_numbers(uids), wanted_uids(tuple(filters.uids)))
    return found


def _share_of(captions: Sequence[str], languages: Sequence[str]) -> np.ndarray:
    """The chance, by the detector, that each caption is in one of the languages: float64 (n,)."""
    detector = _detector()
    wanted = set(languages)
    shares = [
        sum(chance for language, chance in detector.rank(caption) if language in wanted)
        for caption in captions
    ]
    return np.array(shares, np.float64)


@lru_cache(maxsize=1)
def _detector() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise UserError(
            "filters.languages needs the package py3langid: pip install 'py3langid<0.3' (executors, too)"
        ) from None
    return LanguageIdentifier.from_pickled_model(MODEL_FILE, norm_probs=True)


def uid_numbers(uids: Sequence[str | None]) -> np.ndarray:
    """DataComp's uids, 32 hex digits, as its lists have them: two uint64 each, (n,). What is none is (0, 0)."""
    numbers = np.zeros(len(uids), _UID)
    for row, uid in enumerate(uids):
        if uid is not None and len(uid) == 32:
            try:
                numbers[row] = int(uid[:16], 16), int(uid[16:], 16)
            except ValueError:
                continue
    return numbers


@lru_cache(maxsize=1)
def wanted_uids(paths: tuple[str, ...]) -> np.ndarray:
    """The uids of some lists, sorted: ``.npy`` of two uint64 each as DataComp writes them, or Parquet with `uid`.

    Raises:
        UserError: a file that is neither.
    """
    parts = [_uid_file(entry.address) for path in paths for entry in find(path)]
    return np.unique(np.concatenate([np.zeros(0, _UID), *parts]))


def _uid_file(address: str) -> np.ndarray:
    filesystem, path = resolve(address)
    try:
        with filesystem.open_input_file(path) as stream:
            if address.endswith(".npy"):
                values = np.load(stream, allow_pickle=False)
                if values.dtype.kind == "V" and len(values.dtype) == 2 and values.ndim == 1:
                    return values.astype(_UID)
            elif address.endswith(".parquet"):
                return uid_numbers(pq.read_table(stream, columns=["uid"]).column("uid").to_pylist())
    except (OSError, ValueError, pa.ArrowInvalid, KeyError) as error:
        raise UserError(
            f"filters.uids: {address}: cannot be read: {' '.join(str(error).split())[:200]}"
        ) from None
    raise UserError(
        f"filters.uids: {address}: neither a .npy of two uint64 a row, as DataComp writes them, nor a Parquet file"
    )
