"""A folder as Hugging Face's `datasets` reads it: data/train-*.parquet with images as such, and a data set card."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from spark_jobs.exporting.training_set import TRAINING_NAMES
from storage.addresses import join, list_folder, make_folder, resolve
from storage.manifest import Manifest
from storage.small_files import write_atomically

__all__ = ["data_file", "finish_hugging_face", "hugging_face_table", "write_data"]

_ROWS = 100  # of a row group: what a viewer reads at a time
_LISTS = {"concepts": pa.string(), "scores": pa.float32(), "clusters": pa.int32()}
_KINDS = {pa.string(): "string", pa.float32(): "float32", pa.int32(): "int32"}

CARD = """\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
task_categories:
- image-segmentation
- zero-shot-image-classification
tags:
- image-text
- concept-curation
size_categories:
- {size}
---
# Image-caption pairs with concept archives

{rows:,} pairs of {corpora}, each with the concepts that its image shows by the captions of similar images (Concept
Curation, [arXiv 2309.13505](https://arxiv.org/abs/2309.13505)); made by CoCu on Spark {version}.

| column | what it is |
| --- | --- |
| `key` | corpus/shard/sample |
| `image` | JPEG, its short side at most {short_side} pixels |
| `caption` | as found, one line of clean text |
| `concepts` | best first, at most {length} |
| `scores` | of the concepts, by the ranking `{ranking}` |
| `clusters` | of the concepts: those of one cluster are of a kind |
{columns}
How it was made: {pairs_in:,} pairs were read, {rejected:,} left out ({reasons}). Recipe of the training set: `{recipe}`.

The images and captions belong to whoever made them; this card says nothing of their licences{licence}. Archives repeat what captions
of the same corpus say, with its biases.
"""


def data_file(unit: str) -> str:
    """The name of a part, below the folder: that of its unit, so that it stands whatever is added beside it."""
    return f"data/train-{unit.replace('/', '--')}.parquet"


def hugging_face_table(table: pa.Table) -> pa.Table:
    """A part of the training set with images as structs, archives without padding, and the features told."""
    names = table.column("archive_concepts").to_pylist()
    lengths = [sum(bool(name) for name in row) for row in names]
    image = table.column("image").combine_chunks()
    if isinstance(image, pa.ChunkedArray):
        image = pa.concat_arrays(image.chunks) if image.num_chunks else pa.array([], pa.binary())
    paths = pa.array(
        [f"{key.rpartition('/')[2]}.jpg" for key in table.column("key").to_pylist()], pa.string()
    )
    columns: dict[str, Any] = {
        "key": table.column("key"),
        "image": pa.StructArray.from_arrays([image, paths], ["bytes", "path"]),
        "caption": table.column("caption"),
    }
    features: dict[str, Any] = {
        "key": _value("string"), "image": {"_type": "Image"}, "caption": _value("string")
    }  # fmt: skip
    for name, kind in _LISTS.items():
        values = table.column(f"archive_{name}").to_pylist()
        columns[name] = pa.array([row[:n] for row, n in zip(values, lengths, strict=True)], pa.list_(kind))
        features[name] = {"feature": _value(_KINDS[kind]), "_type": "Sequence"}
    for name in _further(table.schema):
        columns[name] = table.column(name)
        features[name] = _value("string")
    told = json.dumps({"info": {"features": features}})
    return pa.table(columns).replace_schema_metadata({"huggingface": told})


def _value(kind: str) -> dict[str, str]:
    return {"dtype": kind, "_type": "Value"}


def _further(schema: pa.Schema) -> list[str]:
    """The columns that travel from the source."""
    return [name for name in schema.names if name not in TRAINING_NAMES]


def write_data(folder: str, unit: str, table: pa.Table, attempt: str) -> None:
    """One part; an attempt that runs again replaces it by one rename."""
    filesystem, path = resolve(join(folder, data_file(unit)))
    make_folder(filesystem, posixpath.dirname(path))
    temporary = f"{path}.{attempt}.tmp"
    with filesystem.open_output_stream(temporary) as sink:
        pq.write_table(hugging_face_table(table), sink, row_group_size=_ROWS, compression="zstd")
    filesystem.move(temporary, path)


def finish_hugging_face(folder: str, about: Mapping[str, Any], manifest: Manifest) -> None:
    """Remove parts of an earlier training set, and write the card.

    Args:
        folder: of the data set.
        about: what the card says besides: short_side, length, ranking, pairs_in, rejects (reason -> count), columns.
        manifest: of the training set.
    """
    filesystem, path = resolve(join(folder, "data"))
    named = {posixpath.basename(data_file(unit.unit)) for unit in manifest.units}
    for info in list_folder(filesystem, path):
        if info.type == pafs.FileType.File and info.base_name not in named:
            filesystem.delete_file(info.path)
    corpora = sorted({part.name.partition("/")[0] for part in manifest.parts})
    rejects = about["rejects"]
    columns = about["columns"]
    text = CARD.format(
        rows=manifest.rows,
        size=_size(manifest.rows),
        corpora=", ".join(corpora) or "no corpus",
        version=manifest.version,
        recipe=manifest.recipe,
        short_side=about["short_side"],
        length=about["length"],
        ranking=about["ranking"],
        pairs_in=about["pairs_in"],
        rejected=sum(rejects.values()),
        reasons=", ".join(f"{count:,} {reason}" for reason, count in rejects.items()) or "none",
        columns="".join(f"| `{name}` | as the source has it |\n" for name in columns),
        licence=" beyond the columns that came with them" if columns else "",
    )
    write_atomically(join(folder, "README.md"), text.encode())


def _size(rows: int) -> str:
    """The hub's word for a number of rows."""
    edges = (
        (1_000, "n<1K"),
        (10_000, "1K<n<10K"),
        (100_000, "10K<n<100K"),
        (1_000_000, "100K<n<1M"),
        (10_000_000, "1M<n<10M"),
    )
    return next((word for most, word in edges if rows < most), "10M<n<100M")
