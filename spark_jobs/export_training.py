"""Job 6: pairs, archives -> training_set, and webdataset shards if wanted.

The archive's lists are cut and padded to one length, because Petastorm's `make_batch_reader` takes no
ragged lists. Row groups are small: they are what is shuffled and shared out among the ranks.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
import uuid
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.schema import CocuConfig
from curation.text import vocabulary
from spark_jobs.engine.commits import build_table
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import finish_unit, units_of
from storage import tables
from storage.addresses import list_folder, resolve
from storage.tables import Manifest
from storage.units import Unit, UnitRecord

__all__ = ["check", "main", "pad_lists", "run", "training_schema"]

HELP = """\
Join images, captions and archives into what training reads: reads pairs and archives, writes training_set.

Each row: key, image (JPEG), caption, caption_tokens (its CLIP token ids, uint16, without marks), caption_nouns
(for the GroupViT baseline on the same pixels) and the best export.archive_length concepts with scores and
clusters, padded with "", 0 and -1. Petastorm's make_batch_reader reads the part files (give it their list; training.train does).
export.webdataset=true also writes training_set_webdataset/*.tar: the image as KEY.jpg, and KEY.txt with
three lines: the caption; the archive's concepts, best first, joined by ", "; their scores, joined by ", ".

Example:
  spark-submit spark_jobs/export_training.py --config configs/cc3m.yaml workspace=/data/cocu \\
      export.archive_length=16 export.webdataset=true"""


def training_schema(length: int) -> pa.Schema:
    """The table's columns for archives of this length.

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
        ]
    )


def check(config: CocuConfig) -> None:
    """What can be wrong before Spark starts."""
    pairs = tables.read_manifest(config.workspace, "pairs")
    if pairs.job == "import_embeddings":
        raise UserError(
            "the pairs of this workspace were imported as embeddings and have no images; ingest them to train"
        )
    tables.read_manifest(config.workspace, "archives")


def run(session: SparkSession, config: CocuConfig) -> Manifest:
    """Build training_set."""
    check(config)
    pairs = tables.read_manifest(config.workspace, "pairs")
    archives = tables.read_manifest(config.workspace, "archives")
    options = config.export
    settings: dict[str, Any] = {
        "archive_length": options.archive_length,
        "row_group_rows": options.row_group_rows,
        "webdataset": options.webdataset,
        "max_words": config.concepts.max_words,
    }
    held = {part.name for part in archives.parts}
    corpora = sorted({name.partition("/")[0] for name in held})
    shards = tables.join(config.workspace, "training_set_webdataset") if options.webdataset else ""
    units = [
        replace(unit, payload=(*unit.payload, options, config.concepts.max_words, shards))
        for unit in units_of(archives, [pairs], corpora)
    ]
    job = TableJob(
        job="export_training",
        table="training_set",
        settings=settings,
        inputs={"pairs": pairs.recipe, "archives": archives.recipe},
        units=units,
        task=export_unit,
        common=settings,
        sources=[pairs, archives],
        contents={unit.name: unit.content for unit in units},
        finish=partial(_remove_other_shards, shards) if shards else None,
    )
    return build_table(session, config, job)


def _remove_other_shards(folder: str, manifest: Manifest) -> None:
    """Shards of an earlier training set with other units would be read along with this one's."""
    filesystem, path = resolve(folder)
    named = {_shard_name(part.name) for part in manifest.parts}
    for info in list_folder(filesystem, path):
        if info.type == pafs.FileType.File and info.base_name not in named:
            filesystem.delete_file(info.path)


def _shard_name(unit: str) -> str:
    return f"{unit.replace('/', '--')}.tar"


def export_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Join one part (runs on an executor)."""
    archives_address, pairs_address, options, max_words, shards = unit.payload
    archives = tables.read_file(archives_address, ["key", "concepts", "scores", "clusters"])
    pairs = tables.read_file(pairs_address, ["key", "image", "caption"])
    if not archives.column("key").equals(pairs.column("key")):
        # Rows that embedding rejected are in pairs and not in archives.
        rows = pc.index_in(archives.column("key"), value_set=pairs.column("key").combine_chunks())
        if rows.null_count:
            raise UserError(
                f"{archives_address}: {rows.null_count} keys are not in {pairs_address}; run build_archives again "
                "with overwrite=[archives]"
            )
        pairs = pairs.take(rows)
    length = options.archive_length
    captions = pairs.column("caption").combine_chunks()
    # torch comes with it, which no other part of this job needs
    from models.token_rows import pack_ids

    nouns = ["\n".join(vocabulary.noun_phrases(caption, max_words)) for caption in captions.to_pylist()]
    table = pa.table(
        {
            "key": pairs.column("key"),
            "image": pairs.column("image"),
            "caption": captions,
            "caption_tokens": pack_ids(captions.to_pylist()),
            "caption_nouns": nouns,
            "archive_concepts": pad_lists(archives.column("concepts"), length, ""),
            "archive_scores": pad_lists(archives.column("scores"), length, 0.0),
            "archive_clusters": pad_lists(archives.column("clusters"), length, -1).cast(pa.list_(pa.int32())),
        },
        schema=training_schema(length),
    )
    if shards:
        write_shard(shards, unit.name, table)
    return finish_unit(unit, folder, recipe, table, row_group_rows=options.row_group_rows)


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


def write_shard(folder: str, name: str, table: pa.Table) -> str:
    """One webdataset shard with a unit's rows; an attempt that runs again replaces it by one rename."""
    filesystem, path = resolve(tables.join(folder, _shard_name(name)))
    filesystem.create_dir(posixpath.dirname(path), recursive=True)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    with filesystem.open_output_stream(temporary) as sink, tarfile.open(fileobj=sink, mode="w|") as tar:
        for row in table.to_pylist():
            found = [
                (concept, score)
                for concept, score in zip(row["archive_concepts"], row["archive_scores"], strict=True)
                if concept
            ]
            lines = [row["caption"], ", ".join(c for c, _ in found), ", ".join(f"{s:.6f}" for _, s in found)]
            member = row["key"].replace("/", "--").replace(".", "_")  # webdataset cuts names at the first dot
            for suffix, data in (("jpg", row["image"]), ("txt", "\n".join(lines).encode())):
                info = tarfile.TarInfo(f"{member}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    filesystem.move(temporary, path)
    return path


def main() -> None:
    """Entry of spark-submit."""
    from spark_jobs.engine.entry import job_entry

    job_entry("export_training", HELP, ["export"], check, run)


if __name__ == "__main__":
    from spark_jobs.export_training import (
        main as entry,  # by its import name, so that executors find the task's function
    )

    entry()
