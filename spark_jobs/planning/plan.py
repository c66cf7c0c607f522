"""The plan of one job, or of several one after another, as a table."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.errors import UserError
from configs.overwrite import may_replace, must_rebuild
from configs.schema import CocuConfig
from spark_jobs.engine.commits import only_units_differ, taken_over
from spark_jobs.engine.folders import FolderJob, inputs_grew
from spark_jobs.engine.table_job import TableJob
from spark_jobs.planning.costs import BUILDS, Measured, bytes_a_row, measured, memory, table_bytes
from spark_jobs.planning.sources import Source, measure
from storage import tables
from storage.addresses import is_local, resolve
from storage.tables import Manifest

__all__ = ["Step", "plan_text"]

Described = Callable[[CocuConfig], Sequence[TableJob | FolderJob]]
"""What a job would build, once the tables that it reads are there."""

_READS = {
    "embed_images": ("pairs",),
    "find_duplicates": ("image_embeddings",),
    "select_pairs": ("pairs", "image_embeddings"),
    "mine_concepts": ("pairs", "image_embeddings"),
    "fit_probe": ("image_embeddings", "pair_concepts"),
    "build_index": ("image_embeddings", "pair_concepts"),
    "build_archives": ("image_embeddings", "pair_concepts", "index"),
    "export_training": ("pairs", "archives"),
}
_CAPTIONS_ONLY = 0.02  # of the bytes of `pairs`, where the column of images is left alone


@dataclass(frozen=True)
class Step:
    """One line of a plan; None: not known beforehand. ``left``: the share that is not done yet."""

    job: str
    units: int | None
    rows: int | None
    reads: float | None
    writes: float | None
    memory: float
    seconds: float | None
    left: float
    state: str


def plan_text(config: CocuConfig, name: str, jobs: Sequence[tuple[str, Described]]) -> str:
    """The plan of some jobs in their order, as text. Reads manifests, listings and a few samples; starts nothing.

    Times are rows over the rate of a slot times the slots that have work; building the index and fitting the probe are
    taken to scale with the rows.

    Args:
        config: checked.
        name: of the entry that would run.
        jobs: names, and what each of them would build.
    """
    known = measured(config.plan.measured or config.workspace)
    slots, told = _slots(config)
    sources = measure(config) if jobs[0][0] in ("ingest", "import_embeddings") else []
    pairs = tables.find_manifest(config.workspace, "pairs")
    steps = list(_steps(config, jobs, known, slots, sources, pairs))
    lines = [f"plan of {name} in {config.workspace}; nothing is started", *_source_lines(sources), ""]
    lines += _table(steps)
    left = sum((step.writes or 0) * step.left for step in steps)
    lines += ["", f"disk: about {_bytes(left)} more{_free(config.workspace)}"]
    unknown = [step.job for step in steps if step.seconds is None and step.left]
    hours = sum(step.seconds or 0 for step in steps)
    besides = f", and {', '.join(unknown)}" if unknown else ""
    lines.append(f"time: {_time(hours) if hours or not unknown else '?'} with {slots} {told}{besides}")
    if unknown:
        lines.append(
            "rates that are not known: run with limit=1000 first and say plan.measured=WORKSPACE-first-1000, or give "
            f"rows a second of a slot, as plan.rates.{unknown[0]}=7"
        )
    return "\n".join(lines)


def _steps(
    config: CocuConfig,
    jobs: Sequence[tuple[str, Described]],
    known: Measured,
    slots: int,
    sources: Sequence[Source],
    pairs: Manifest | None,
) -> Iterator[Step]:
    rows_of = _corpus_rows(sources, pairs)
    size = sum(source.size for source in sources)
    total = sum(rows for rows in rows_of.values()) if rows_of and None not in rows_of.values() else None
    source_row = size / total if size and total else None
    concepts_table = tables.find_manifest(config.workspace, "concepts")
    concepts = concepts_table.rows if concepts_table else config.concepts.max_concepts
    stale: set[str] = set()
    for job, described in jobs:
        chosen = config.index.corpora if job in ("build_index", "fit_probe") else ()
        chosen = config.archives.corpora if job in ("build_archives", "export_training") else chosen
        rows = None if total is None else sum(rows_of[name] or 0 for name in chosen or rows_of)
        left, state, units = _progress(config, job, described, stale)
        if left:
            stale.update(BUILDS[job])
        if units is None and rows is not None:
            units = math.ceil(rows / config.ingest.rows_per_part)
        if job == "ingest":
            units = sum(source.shards for source in sources)
        counted = {"concepts": concepts, "probe": concepts}
        sizes = [
            None if rows is None else counted.get(name, rows) * bytes_a_row(config, name, known, source_row)
            for name in BUILDS[job]
        ]
        writes = None if None in sizes else float(sum(size for size in sizes if size is not None))
        rate = config.plan.rates.get(job, known.rates.get(job))
        at_once = min(slots, units or slots) if job != "build_index" else 1
        seconds = rows * left / (rate * at_once) if rows is not None and rate else None
        yield Step(
            job,
            units,
            rows,
            float(size)
            if job in ("ingest", "import_embeddings")
            else _reads(config, job, rows, known, source_row),
            writes,
            memory(config, job, rows or 0, concepts),
            0.0 if not left else seconds,
            left,
            state,
        )


def _corpus_rows(sources: Sequence[Source], pairs: Manifest | None) -> dict[str, int | None]:
    """Pairs of each corpus: those of the finished table, else of the sources."""
    if pairs is None:
        return {source.name: source.rows for source in sources}
    found: dict[str, int | None] = {}
    for part in pairs.parts:
        name = part.name.partition("/")[0]
        found[name] = (found.get(name) or 0) + part.rows
    return found


def _reads(
    config: CocuConfig, job: str, rows: int | None, known: Measured, source: float | None
) -> float | None:
    total = 0.0
    for name in _READS[job]:
        manifest = tables.find_manifest(config.workspace, name)
        if manifest is not None and manifest.files:
            size = float(table_bytes(manifest))
        elif rows is not None:
            size = rows * bytes_a_row(config, name, known, source)
        else:
            return None
        total += size * (
            _CAPTIONS_ONLY if name == "pairs" and job in ("mine_concepts", "select_pairs") else 1
        )
    return total


def _progress(
    config: CocuConfig, job: str, described: Described, stale: set[str]
) -> tuple[float, str, int | None]:
    """The share that is left, its state in words, and the number of units where it is known."""
    if any(name in stale for name in _READS.get(job, ())):
        there = [name for name in BUILDS[job] if tables.find_manifest(config.workspace, name) is not None]
        return 1.0, "after the steps before" + (", anew if its input changes" if there else ""), None
    try:
        wanted = described(config)
    except UserError as error:
        return 1.0, str(error).partition("; ")[0], None
    states = [_state(config, one) for one in wanted]
    left = [share for share, _, _ in states]
    text = states[0][1] if len({text for _, text, _ in states}) == 1 else "; ".join(
        f"{one.table}: {text}" for one, (_, text, _) in zip(wanted, states, strict=True)
    )  # fmt: skip
    units = [count for _, _, count in states if count]
    # Tables that are not told of come after the first; before it are those that stay as they are.
    missing = len(BUILDS[job]) - len(wanted) if wanted[0].table == BUILDS[job][0] else 0
    return (sum(left) + missing) / len(BUILDS[job]), text, max(units) if units else None


def _state(config: CocuConfig, job: TableJob | FolderJob) -> tuple[float, str, int | None]:
    units = None
    if isinstance(job, TableJob):
        units = job.expected or (None if callable(job.units) else len(job.units)) or None
    done = tables.find_manifest(config.workspace, job.table)
    if done is not None and done.recipe == job.recipe and not must_rebuild(config.overwrite, job.table):
        return 0.0, "complete", units
    if done is not None and isinstance(job, TableJob) and only_units_differ(config, done, job) and units:
        standing = len(taken_over(config, job))
        return 1 - standing / units, f"grows: {standing:,} of {units:,} units stand", units
    if done is not None and isinstance(job, FolderJob) and inputs_grew(done, job):
        return (
            (0.0, "stays as it was before pairs were added", units)
            if job.keep
            else (1.0, "anew, with what was added", units)
        )
    if done is not None and done.recipe != job.recipe and not may_replace(config.overwrite, job.table):
        recipes = job.inputs if isinstance(job, TableJob) else job.recipes
        why = tables.recipe_differences(done, job.settings, recipes)
        return 1.0, f"another is there ({why}): needs overwrite=[{job.table}]", units
    begun = (
        tables.read_progress(config.workspace, job.table, job.recipe) if isinstance(job, TableJob) else None
    )
    if begun is not None and units:
        return 1 - len(begun.units) / units, f"{len(begun.units):,} of {units:,} units are done", units
    return 1.0, "to be replaced" if done is not None else "to do", units


def _slots(config: CocuConfig) -> tuple[int, str]:
    if config.plan.slots:
        return config.plan.slots, "slots (plan.slots)"
    local = re.fullmatch(r"local\[(\d+)[^\]]*\]", config.spark.master)
    if local:
        return int(local[1]), f"slots (spark.master={config.spark.master})"
    return os.cpu_count() or 1, "slots (this machine's; plan.slots=N: a cluster's)"


def _source_lines(sources: Sequence[Source]) -> list[str]:
    lines = []
    for source in sources:
        rows = "?" if source.rows is None else f"{'' if source.exact else 'about '}{source.rows:,}"
        size = _bytes(source.size) if source.size else "size unknown"
        lines.append(f"  corpus {source.name}: {source.shards:,} shards, {size}, {rows} pairs")
    return lines


def _table(steps: Sequence[Step]) -> list[str]:
    head = ("step", "units", "rows", "reads", "writes", "a worker", "time", "state")
    rows = [
        (
            step.job,
            "?" if step.units is None else f"{step.units:,}",
            "?" if step.rows is None else f"{step.rows:,}",
            _bytes(step.reads),
            _bytes(step.writes),
            _bytes(step.memory),
            "?" if step.seconds is None else _time(step.seconds),
            step.state,
        )
        for step in steps
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head) - 1)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=True)), row[-1]]
        )
        for row in (head, *rows)
    ]  # fmt: skip


def _bytes(count: float | None) -> str:
    if count is None:
        return "?"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _free(workspace: str) -> str:
    """What the disk below a local workspace still has."""
    filesystem, path = resolve(workspace)
    if not is_local(filesystem):
        return ""
    place = next((parent for parent in (Path(path), *Path(path).parents) if parent.exists()), Path("/"))
    return f", {_bytes(shutil.disk_usage(place).free)} are free"
