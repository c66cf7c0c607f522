"""Job 7: pairs, archives -> training_set, and shards or a data set for other trainers if wanted.

The archive's lists are cut and padded to one length, because Petastorm's `make_batch_reader` takes no
ragged lists. Row groups are small: they are what is shuffled and shared out among the ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.schema import CocuConfig
from spark_jobs.engine.commits import build_table
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import finish_unit, units_of
from spark_jobs.engine.waves import attempt_name
from spark_jobs.exporting.hugging_face import finish_hugging_face, write_data
from spark_jobs.exporting.shards import (
    finish_open_clip,
    open_clip_files,
    remove_other_shards,
    three_lines,
    write_shard,
)
from spark_jobs.exporting.training_set import pad_lists, training_schema
from spark_jobs.mining.caption_nouns import joined_nouns, tagged_parts
from spark_jobs.planning import plan_text
from storage import tables
from storage.selection import read_selected
from storage.tables import Manifest
from storage.units import Unit, UnitRecord

__all__ = ["Forms", "check", "main", "plan", "planned", "run"]

HELP = """\
Join images, captions and archives into what training reads: reads pairs and archives, writes training_set.

Each row: key, image (JPEG), caption, caption_tokens (its CLIP token ids, uint16, without marks), caption_nouns
(for the GroupViT baseline on the same pixels) and the best export.archive_length concepts with scores and
clusters, padded with "", 0 and -1. Petastorm's make_batch_reader reads the part files (give it their list;
training.train does).
export.webdataset=true also writes training_set_webdataset/*.tar: the image as KEY.jpg, and KEY.txt with
three lines: the caption; the archive's concepts, best first, joined by ", "; their scores, joined by ", ".
export.open_clip=true writes training_set_open_clip/*.tar for open_clip's own trainer: KEY.jpg, KEY.txt with the
caption alone, KEY.json with the archive and the columns of ingest.columns; and sizes.json.
export.hugging_face=true writes training_set_hugging_face/, a data set for load_dataset, with a card (README.md).

Example:
  spark-submit spark_jobs/export_training.py --config configs/cc3m.yaml workspace=/data/cocu \\
      export.archive_length=16 export.webdataset=true"""


def check(config: CocuConfig) -> None:
    """What can be wrong before Spark starts."""
    pairs = tables.read_manifest(config.workspace, "pairs")
    if pairs.job == "import_embeddings":
        raise UserError(
            "the pairs of this workspace were imported as embeddings and have no images; ingest them to train"
        )
    tables.read_manifest(config.workspace, "archives")


@dataclass(frozen=True)
class Forms:
    """What is written beside the table: addresses of folders, empty ones for none; ``columns`` go along."""

    columns: tuple[str, ...] = ()
    webdataset: str = ""
    open_clip: str = ""
    hugging_face: str = ""


def table_job(config: CocuConfig) -> TableJob:
    """What is to be built."""
    pairs = tables.read_manifest(config.workspace, "pairs")
    archives = tables.read_manifest(config.workspace, "archives")
    options = config.export
    settings: dict[str, Any] = {
        "archive_length": options.archive_length,
        "row_group_rows": options.row_group_rows,
        "webdataset": options.webdataset,
        "max_words": config.concepts.max_words,
        # Tables of before there were such forms stay what they are.
        **{name: True for name in ("open_clip", "hugging_face") if getattr(options, name)},
    }
    held = {part.name for part in archives.parts}
    corpora = sorted({name.partition("/")[0] for name in held})
    folders = {
        form: tables.join(config.workspace, f"training_set_{form}")
        for form in ("webdataset", "open_clip", "hugging_face")
        if getattr(options, form)
    }
    forms = Forms(tuple(pairs.settings.get("ingest", {}).get("columns", ())), **folders)
    tagged = tagged_parts(config, read_selected(config, "pairs"))
    units = [
        replace(
            unit,
            payload=(*unit.payload, tagged.get(unit.name, ""), options, config.concepts.max_words, forms),
        )
        for unit in units_of(archives, [pairs], corpora)
    ]
    ends: list[Callable[[Manifest], None]] = []
    if forms.webdataset:
        ends.append(partial(remove_other_shards, forms.webdataset))
    if forms.open_clip:
        ends.append(partial(finish_open_clip, forms.open_clip))
    if forms.hugging_face:
        about = {
            "short_side": config.ingest.short_side,
            "length": options.archive_length,
            "ranking": archives.settings.get("ranking", "unknown"),
            "pairs_in": pairs.rows_in,
            "rejects": pairs.rejects,
            "columns": forms.columns,
        }
        ends.append(partial(finish_hugging_face, forms.hugging_face, about))

    def finish(manifest: Manifest) -> None:
        for end in ends:
            end(manifest)

    return TableJob(
        job="export_training",
        table="training_set",
        settings=settings,
        inputs={"pairs": pairs.recipe, "archives": archives.recipe},
        units=units,
        task=export_unit,
        common=settings,
        sources=[pairs, archives],
        contents={unit.name: unit.content for unit in units},
        finish=finish,
    )


def run(session: SparkSession, config: CocuConfig) -> Manifest:
    """Build training_set."""
    check(config)
    return build_table(session, config, table_job(config))


def export_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Join one part (runs on an executor)."""
    archives_address, pairs_address, tagged, options, max_words, forms = unit.payload
    archives = tables.read_file(archives_address, ["key", "concepts", "scores", "clusters"])
    pairs = tables.read_file(pairs_address, ["key", "image", "caption", *forms.columns])
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

    nouns = (
        tables.rows_of_keys(tables.read_file(tagged), archives.column("key")).column("nouns")
        if tagged
        else joined_nouns(captions.to_pylist(), max_words)
    )
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
            **{name: pairs.column(name) for name in forms.columns},
        },
        schema=training_schema(length, forms.columns),
    )
    if forms.webdataset:
        write_shard(forms.webdataset, unit.name, table, three_lines)
    if forms.open_clip:
        write_shard(forms.open_clip, unit.name, table, open_clip_files)
    if forms.hugging_face:
        write_data(forms.hugging_face, unit.name, table, attempt_name())
    return finish_unit(unit, folder, recipe, table, row_group_rows=options.row_group_rows)


def planned(config: CocuConfig) -> list[TableJob]:
    """What is to be built, once the tables that are read are there."""
    return [table_job(config)]


def plan(config: CocuConfig) -> str:
    """What `--plan` prints."""
    return plan_text(config, "export_training", [("export_training", planned)])


def main() -> None:
    """Entry of spark-submit."""
    from spark_jobs.engine.entry import job_entry

    job_entry("export_training", HELP, ["export"], check, run, plan)


if __name__ == "__main__":
    from spark_jobs.export_training import (
        main as entry,  # by its import name, so that executors find the task's function
    )

    entry()
