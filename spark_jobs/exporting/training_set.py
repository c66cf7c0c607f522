"""The columns of the training set, and ragged lists made equally long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

__all__ = ["TRAINING_NAMES", "pad_lists", "training_schema"]

TRAINING_NAMES = (
    "key",
    "image",
    "caption",
    "caption_tokens",
    "caption_nouns",
    "archive_concepts",
    "archive_scores",
    "archive_clusters",
)
"""The table's own columns; those of ``ingest.columns`` stand behind them."""


def training_schema(length: int, columns: Sequence[str] = ()) -> pa.Schema:
    """The table's columns for archives of this length, and those that came along from the source.

    The lists are all of one length, which stands in their fields' metadata. Arrow's own type for that is of
    no use here: Petastorm leaves columns of it out, with no more than a warning.
    """
    told = {"length": str(length)}
    return pa.schema(
        [
            ("key", pa.string()),
            ("image", pa.binary()),
            ("caption", pa.string()),
            ("caption_tokens", pa.binary()),
            ("caption_nouns", pa.string()),
            pa.field("archive_concepts", pa.list_(pa.string()), metadata=told),
            pa.field("archive_scores", pa.list_(pa.float32()), metadata=told),
            pa.field("archive_clusters", pa.list_(pa.int32()), metadata=told),
            *((name, pa.string()) for name in columns),
        ]
    )


def pad_lists(column: pa.ChunkedArray, length: int, fill: str | float | int) -> pa.Array:
    """A ragged list column as lists of one length: cut, or filled up with ``fill``."""
    lists = pa.concat_arrays([pa.array([], column.type), *column.chunks])
    values = lists.flatten()
    sizes = np.diff(lists.offsets.to_numpy())
    starts = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    kept = np.minimum(sizes, length)
    # Row of `values` for every slot; the slots after a row's end point at the appended fill value.
    slots = starts[:, None] + np.arange(length)
    slots = np.where(np.arange(length) < kept[:, None], slots, len(values))
    filled = pa.concat_arrays([values, pa.array([fill], values.type)])
    offsets = np.arange(len(lists) + 1, dtype=np.int32) * length
    return pa.ListArray.from_arrays(offsets, filled.take(pa.array(slots.ravel(), pa.int64())))
