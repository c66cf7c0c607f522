"""Job 1: shards of image-caption pairs -> pairs, rejects.

One task reads one input shard and writes as many part files of at most `ingest.rows_per_part` pairs as
it holds. These part files are the units of all later jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.loading import to_plain
from configs.overwrite import may_replace
from configs.schema import CocuConfig, CorpusConfig, IngestConfig
from corpora.fingerprint import fingerprint, how_read, image_stamps, shard_contents
from corpora.ingest_shard import PAIRS_SCHEMA, REJECTS_SCHEMA, Chunk, ingest_shard
from corpora.readers.yfcc_captions import sort_into_buckets
from corpora.shards import Shard, list_shards
from spark_jobs.engine.commits import build_table
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.waves import attempt_name
from spark_jobs.exporting.training_set import TRAINING_NAMES
from spark_jobs.planning import plan_text
from storage import tables
from storage.addresses import resolve
from storage.tables import Manifest
from storage.units import Part, Unit, UnitRecord

__all__ = ["check", "main", "plan", "planned", "run"]

HELP = """\
Read image-caption shards, check and clean every pair, store it once: writes `pairs` and its rejects.

Sources are the entries of `corpora` in the configuration file, each with
  name          short name, the first part of every key
  format        webdataset | parquet | files   what img2dataset writes
                table        CSV/TSV of (image path, caption), one a line, beside an image folder; in place of a path,
                             as in a text column of parquet, the image itself may stand (base64, a data: URL)
                yfcc14m      zips of photos, and the TSV with their captions
                embeddings   ready vectors with captions: see import_embeddings.py
  path          local, hdfs://, s3a://, gs:// or abfss://; braces and globs: cc3m/{00000..00331}.tar
  image_root    table, yfcc14m: the folder that the image paths start from, or that holds the zips
  image_column, caption_column   table, parquet: names of the columns, if not `image` and `caption`;
                webdataset, files: suffixes (`s1.input.jpg`: input.jpg), the caption's also the JSON's key

Images are decoded to the end, turned upright, made RGB (alpha on white), scaled down to
ingest.short_side and stored as JPEG without metadata; captions become one line of clean text. Every
sample ends in `pairs` or, with a reason, in the rejects. Started again, it goes on with the shards that
are missing; with nothing missing it does nothing.

Example:
  spark-submit spark_jobs/ingest.py --config configs/cc3m.yaml workspace=/data/cocu \\
      'corpora=[{name: cc3m, format: webdataset, path: "/data/cc3m/{00000..00331}.tar"}]'"""

# Settings that change how fast or careful ingest works, not what it writes.
_NOT_CONTENT = ("threads", "image_seconds")
_SORTED = "_captions"
_TAKEN = {*PAIRS_SCHEMA.names, *TRAINING_NAMES}
_ZIPS_UNSORTED = 4  # so many read the tables through, each for itself


def check(config: CocuConfig) -> None:
    """What can be wrong before Spark starts: no corpora, patterns that match nothing."""
    if not config.corpora:
        raise UserError(
            "corpora is empty: name at least one source (name, format, path) in the configuration file"
        )
    check_columns(config.ingest.columns)
    for corpus in config.corpora:
        if corpus.format != "embeddings":
            list_shards(corpus)
    for corpus in config.corpora:
        if config.ingest.columns and corpus.format == "yfcc14m":
            print(
                f"ingest: corpus '{corpus.name}': yfcc14m has no further columns; ingest.columns are null there",
                flush=True,
            )


def check_columns(columns: Sequence[str]) -> None:
    """Whether columns of these names can go along.

    Raises:
        UserError: a name that a table of this software has, or that is named twice.
    """
    for number, name in enumerate(columns):
        if not name or name in _TAKEN or name in columns[:number]:
            why = (
                "is named twice"
                if name in columns[:number]
                else "is a name that pairs or training_set have themselves"
            )
            raise UserError(f"ingest.columns: '{name}' {why}; leave it out or rename it in the source")


def table_job(config: CocuConfig) -> TableJob:
    """What is to be built: the shards are listed, and read by nobody yet."""
    options = config.ingest
    settings: dict[str, Any] = to_plain(options)
    for name in _NOT_CONTENT:
        settings.pop(name)
    if not options.columns:
        del settings["columns"]  # tables of before there were such stay what they are
    corpora = [corpus for corpus in config.corpora if corpus.format != "embeddings"]
    shards = [shard for corpus in corpora for shard in list_shards(corpus)]
    images = image_stamps(corpora)
    _insist_on_reading_alike(config, corpora)

    def units() -> list[Unit]:
        ready = with_sorted_captions(shards, tables.join(config.workspace, _SORTED))
        if config.limit:
            return [
                Unit(
                    f"{corpus.name}/first-{config.limit}",
                    config.limit,
                    ([shard for shard in ready if shard.corpus == corpus.name], config.ingest, config.limit),
                    corpus.path,
                )
                for corpus in corpora
            ]
        return [
            Unit(f"{shard.corpus}/{shard.name}", 0, (shard, config.ingest), shard.address) for shard in ready
        ]

    return TableJob(
        job="ingest",
        table="pairs",
        settings={
            "ingest": settings,
            "corpora": [to_plain(corpus) for corpus in corpora],
            **({"limit": config.limit} if config.limit else {}),
        },
        inputs={"shards": fingerprint(shards, images)},
        units=units,
        task=ingest_first if config.limit else ingest_unit,
        common={"ingest": settings, **({"limit": config.limit} if config.limit else {})},
        contents=(
            {
                f"{corpus.name}/first-{config.limit}": fingerprint(
                    [one for one in shards if one.corpus == corpus.name],
                    {name: stamp for name, stamp in images.items() if name == corpus.name},
                )
                for corpus in corpora
            }
            if config.limit
            else shard_contents(corpora, shards, images)
        ),
        finish=insist_on_pairs,
        expected=len(corpora) if config.limit else len(shards),
    )


def run(session: SparkSession, config: CocuConfig) -> Manifest:
    """Build pairs."""
    manifest = build_table(session, config, table_job(config))
    _remove(tables.join(config.workspace, _SORTED))
    for line in barren(manifest):
        print(f"ingest: {line}", flush=True)
    return manifest


def _insist_on_reading_alike(config: CocuConfig, corpora: Sequence[CorpusConfig]) -> None:
    """A corpus that is read otherwise than before is no growth: all its rows would be others.

    Raises:
        UserError: what was otherwise, unless ``overwrite`` admits it.
    """
    done = tables.find_manifest(config.workspace, "pairs")
    if done is None or may_replace(config.overwrite, "pairs"):
        return
    before = {entry["name"]: CorpusConfig(**entry) for entry in done.settings.get("corpora", [])}
    for corpus in corpora:
        old = before.get(corpus.name, corpus)
        changed = [name for name, value in how_read(corpus).items() if how_read(old)[name] != value]
        if changed:
            name = changed[0]
            raise UserError(
                f"ingest: corpus '{corpus.name}': {name} was {getattr(old, name)!r} and is now "
                f"{getattr(corpus, name)!r}; say overwrite=[pairs] to read it again, or choose another name or workspace="
            )


def with_sorted_captions(shards: Sequence[Shard], folder: str) -> list[Shard]:
    """The same shards; where more than a few zips share tables, these are sorted below ``folder`` first."""
    uses = Counter(shard.tables for shard in shards if shard.tables)
    sorted_into = {
        used: sort_into_buckets(used, folder) for used, count in uses.items() if count > _ZIPS_UNSORTED
    }
    return [replace(shard, buckets=sorted_into.get(shard.tables, "")) for shard in shards]


def _remove(folder: str) -> None:
    filesystem, path = resolve(folder)
    if filesystem.get_file_info(path).type == pafs.FileType.Directory:
        filesystem.delete_dir(path)


def insist_on_pairs(manifest: Manifest) -> None:
    """A table without a row is no table: what follows would only find a vocabulary of nothing.

    Raises:
        UserError: with the first reject of every shard's reasons.
    """
    if not manifest.rows:
        lines = barren(manifest)
        raise UserError(f"ingest: not one pair came of {len(manifest.units)} shards: {'; '.join(lines)}")


def barren(manifest: Manifest) -> list[str]:
    """A sentence on each corpus, or else shard, that gave no pair: why, and its first reject. The first three."""
    empty = [unit for unit in manifest.units if not unit.parts]
    fruitful = {unit.unit.partition("/")[0] for unit in manifest.units if unit.parts}
    first: dict[str, list[UnitRecord]] = {}
    for unit in empty:
        corpus = unit.unit.partition("/")[0]
        first.setdefault(unit.unit if corpus in fruitful else f"corpus '{corpus}'", []).append(unit)
    lines = [f"{name} gave no pair: {_why(manifest, units)}" for name, units in islice(first.items(), 3)]
    return [*lines, f"and {len(first) - 3} more shards"] if len(first) > 3 else lines


def _why(manifest: Manifest, units: Sequence[UnitRecord]) -> str:
    reasons: Counter[str] = Counter()
    for unit in units:
        reasons.update(unit.rejects)
    text = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(4)) or "no sample"
    file = next((unit.reject_file for unit in units if unit.reject_file), None)
    if file is None:
        return text
    row = (
        tables.read_file(tables.join(manifest.folder, file), ["key", "reason", "detail"])
        .slice(0, 1)
        .to_pylist()[0]
    )
    return f"{text}, the first {row['key']}: {row['reason']}, {row['detail'] or 'no detail'}"


def ingest_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Ingest one shard (runs on an executor)."""
    shard, options = unit.payload
    return _ingested(unit, [(unit.name, shard)], options, 0, folder, recipe)


def ingest_first(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Ingest a corpus' shards one after another until it has given so many pairs (runs on an executor)."""
    shards, options, limit = unit.payload
    small = replace(options, rows_per_part=min(options.rows_per_part, limit))
    named = [(f"{shard.corpus}/{shard.name}", shard) for shard in shards]
    return _ingested(unit, named, small, limit, folder, recipe)


def _ingested(
    unit: Unit,
    shards: Sequence[tuple[str, Shard]],
    options: IngestConfig,
    limit: int,
    folder: str,
    recipe: str,
) -> UnitRecord:
    """The parts and rejects of some shards, whose names begin as given; with ``limit`` of the first so many pairs."""
    attempt = attempt_name()
    parts: list[Part] = []
    reasons: Counter[str] = Counter()
    rejected: list[pa.Table] = []
    for number, name, chunk in _chunks(shards, options):
        left = limit - sum(part.rows for part in parts)
        pairs = chunk.pairs.slice(0, left) if limit else chunk.pairs
        if pairs.num_rows:
            part = f"{name}-{number:05d}"
            file = tables.part_path(recipe, part, attempt)
            parts.append(
                Part(part, file, tables.write_part(folder, file, pairs, pairs.schema, row_group_rows=256))
            )
        if chunk.rejects.num_rows:
            reasons.update(chunk.rejects.column("reason").to_pylist())
            rejected.append(chunk.rejects)
        if limit and pairs.num_rows == left:
            break
    reject_file = None
    if rejected:
        reject_file = tables.part_path(recipe, f"{unit.name}.rejects", attempt)
        tables.write_part(folder, reject_file, iter(rejected), REJECTS_SCHEMA)
    return UnitRecord(
        unit=unit.name,
        parts=tuple(parts),
        rows_in=sum(part.rows for part in parts) + sum(reasons.values()),
        rejects=dict(reasons),
        reject_file=reject_file,
    )


def _chunks(shards: Sequence[tuple[str, Shard]], options: IngestConfig) -> Iterator[tuple[int, str, Chunk]]:
    """Chunks of the shards in order, each with its shard's name and the number of that shard's parts before it."""
    for name, shard in shards:
        number = 0
        for chunk in ingest_shard(shard, options):
            yield number, name, chunk
            number += chunk.pairs.num_rows > 0


def planned(config: CocuConfig) -> list[TableJob]:
    """What is to be built, once the tables that are read are there."""
    return [table_job(config)]


def plan(config: CocuConfig) -> str:
    """What `--plan` prints."""
    return plan_text(config, "ingest", [("ingest", planned)])


def main() -> None:
    """Entry of spark-submit."""
    from spark_jobs.engine.entry import job_entry

    job_entry("ingest", HELP, ["ingest"], check, run, plan)


if __name__ == "__main__":
    from spark_jobs.ingest import (
        main as entry,  # by its import name, so that executors find the task's function
    )

    entry()
