"""The training set as training sees it: its row groups, checked before a process reads any row."""

from __future__ import annotations

import posixpath
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from configs.errors import UserError
from storage import tables
from storage.addresses import resolve

__all__ = ["COLUMNS", "TOKENS", "RowGroup", "TrainingSet", "open_training_set"]

COLUMNS = (
    "key", "image", "caption", "caption_nouns", "archive_concepts", "archive_scores", "archive_clusters",
)  # fmt: skip
TOKENS = "caption_tokens"
"""The column of the captions' token ids; tables of an earlier version lack it, and are tokenised while they are read."""
_WITH_TOKENS = (*COLUMNS[:3], TOKENS, *COLUMNS[3:])
_PICKLED = b"dataset-toolkit.unischema.v1"


@dataclass(frozen=True)
class RowGroup:
    """One row group of a part file."""

    file: str
    number: int
    rows: int


@dataclass(frozen=True)
class TrainingSet:
    """A complete training_set table."""

    groups: list[RowGroup]
    recipe: str
    rows: int
    columns: tuple[str, ...] = COLUMNS
    """those to read: all that there are in every file"""

    @property
    def group_rows(self) -> np.ndarray:
        """int64: rows of each row group."""
        return np.array([group.rows for group in self.groups], np.int64)


def open_training_set(workspace: str) -> TrainingSet:
    """Read the manifest and all footers.

    Raises:
        UserError: no complete table; files missing, damaged or with other columns; the table does not hold
            the rows of its manifest; metadata that would run code.
    """
    manifest = tables.read_manifest(workspace, "training_set")
    _refuse_pickled(manifest.folder)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(_footer, manifest.files))
    groups = [
        RowGroup(file, number, metadata.row_group(number).num_rows)
        for file, metadata in zip(manifest.files, found, strict=True)
        for number in range(metadata.num_row_groups)
        if metadata.row_group(number).num_rows
    ]
    rows = sum(group.rows for group in groups)
    if rows != manifest.rows:
        raise UserError(
            f"{manifest.folder}: its files hold {rows} rows and its manifest says {manifest.rows}; "
            "run export_training with verify=true"
        )
    if not rows:
        raise UserError(
            f"{manifest.folder}: the training set holds no rows; see the rejects of the jobs before it"
        )
    tokens = all(TOKENS in metadata.schema.to_arrow_schema().names for metadata in found)
    return TrainingSet(groups, manifest.recipe, rows, _WITH_TOKENS if tokens else COLUMNS)


def _footer(address: str) -> pq.FileMetaData:
    filesystem, path = resolve(address)
    try:
        with filesystem.open_input_file(path) as source:
            metadata = pq.read_metadata(source)
    except FileNotFoundError:
        raise UserError(
            f"{address}: the training set's manifest names this file and it is gone; "
            "run export_training with verify=true"
        ) from None
    except pa.ArrowInvalid as error:
        raise UserError(
            f"{address}: not a whole Parquet file ({error}); run export_training with verify=true"
        ) from None
    _refuse_key(address, metadata.metadata)
    missing = sorted(set(COLUMNS) - set(metadata.schema.to_arrow_schema().names))
    if missing:
        raise UserError(
            f"{address}: lacks the columns {', '.join(missing)}; run export_training with overwrite=[training_set]"
        )
    return metadata


def _refuse_pickled(folder: str) -> None:
    """Petastorm unpickles a schema that it finds beside the part files; ours never has one."""
    for name in ("_common_metadata", "_metadata"):
        address = posixpath.join(folder, name)
        filesystem, path = resolve(address)
        if filesystem.get_file_info(path).type == pafs.FileType.NotFound:
            continue
        with filesystem.open_input_file(path) as source:
            try:
                metadata = pq.read_metadata(source)
            except pa.ArrowInvalid:
                continue
        _refuse_key(address, metadata.metadata)


def _refuse_key(address: str, metadata: dict[bytes, bytes] | None) -> None:
    if metadata and _PICKLED in metadata:
        raise UserError(
            f"{address}: carries a pickled Petastorm schema, which could run code when read; nothing was opened. "
            "Delete that file, or build the table again with export_training"
        )
