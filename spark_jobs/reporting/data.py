"""What the report and `explain` show, read from the tables with Arrow alone."""

from __future__ import annotations

import difflib
import posixpath
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import UserError
from configs.schema import CocuConfig
from curation.csr import Csr, concatenate
from spark_jobs.engine.units import part_address
from spark_jobs.reporting.results import Evaluation, Training, load_evaluation, load_training, read_json
from spark_jobs.reporting.why import why
from storage import tables
from storage.addresses import resolve
from storage.tables import Manifest
from storage.units import Part

__all__ = ["Concept", "Neighbour", "PairView", "ReportData", "load_pair", "load_report_data"]

_PARTS_LOOKED_AT = 200  # of the archives, for the distributions: half a million pairs
_CONCEPTS_SHOWN, _NEIGHBOURS_SHOWN = 40, 8


@dataclass
class Concept:
    """One concept of an archive."""

    name: str
    score: float
    cluster: int
    in_caption: bool
    why: str = ""


@dataclass
class Neighbour:
    """One retrieved pair."""

    key: str
    similarity: float
    caption: str = ""
    image: bytes = b""


@dataclass
class PairView:
    """A pair with all that its archive came from."""

    key: str
    caption: str
    image: bytes
    concepts: list[Concept]
    neighbours: list[Neighbour]


@dataclass
class ReportData:
    """Everything on the page; optional parts are None or empty where the workspace has none."""

    title: str
    steps: list[dict[str, Any]]
    rejects: list[tuple[str, str, int]]
    concepts: list[tuple[str, int]]
    vocabulary: int
    leaks: dict[str, dict[str, int]]
    merges: list[dict[str, Any]]
    index: dict[str, Any]
    caption_counts: np.ndarray
    added_counts: np.ndarray
    similarities: np.ndarray
    scores: np.ndarray
    looked_at: tuple[int, int]
    pairs: list[PairView]
    duplicates: str = ""
    gap: dict[str, Any] | None = None
    probe: dict[str, Any] | None = None
    training: Training | None = None
    evaluation: Evaluation | None = None


def load_report_data(workspace: str, config: CocuConfig) -> ReportData:
    """Read counts from manifests, distributions from some parts, and the sampled pairs.

    Raises:
        UserError: there are no archives yet.
    """
    archives = tables.read_manifest(workspace, "archives")
    concepts = tables.read_manifest(workspace, "concepts")
    found = {name: tables.find_manifest(workspace, name) for name in _TABLES}
    looked = _spread(archives.parts, _PARTS_LOOKED_AT, config.report.seed)
    columns = ["scores", "in_caption", "similarities"]
    rows = pa.concat_tables([tables.read_file(part_address(archives, part), columns) for part in looked])
    captions = _captions_of(workspace, looked)
    return ReportData(
        title=posixpath.basename(workspace.rstrip("/")),
        steps=[_step(name, manifest) for name, manifest in found.items() if manifest],
        rejects=[
            (manifest.job, reason, count)
            for manifest in found.values()
            if manifest
            for reason, count in manifest.rejects.items()
        ],
        concepts=_most_frequent(concepts, captions),
        vocabulary=concepts.rows,
        leaks=concepts.extra.get("benchmark_classes", {}),
        merges=concepts.extra.get("merges", []),
        index=found["index"].extra["index"] if found["index"] else {},
        caption_counts=captions.lengths,
        added_counts=_added(rows.column("in_caption")),
        similarities=_flat(rows.column("similarities")),
        scores=_flat(rows.column("scores")),
        looked_at=(len(rows), archives.rows),
        pairs=_sample_pairs(workspace, archives, config.report.samples, config.report.seed),
        duplicates=found["duplicates"].extra["text"] if found["duplicates"] else "",
        gap=(read_json(tables.join(workspace, "summary.json")) or {}).get("gap"),
        probe=found["probe"].extra["probe"] if found["probe"] else None,
        training=load_training(workspace),
        evaluation=load_evaluation(workspace),
    )


_TABLES = (
    "pairs",
    "image_embeddings",
    "duplicates",
    "selection",
    "concepts",
    "pair_concepts",
    "probe",
    "index",
    "archives",
    "training_set",
)


def _step(name: str, manifest: Manifest) -> dict[str, Any]:
    rows, rows_in = manifest.rows, manifest.rows_in
    if name == "index":
        rows = rows_in = manifest.extra["index"]["rows"]
    if name == "probe":
        rows, rows_in = manifest.extra["probe"]["concepts"], manifest.extra["probe"]["rows"]
    return {
        "job": manifest.job,
        "table": name,
        "rows_in": rows_in,
        "rows_out": rows,
        "rejected": sum(manifest.rejects.values()),
        "seconds": manifest.seconds,
        "rate": rows_in / manifest.seconds if manifest.seconds else 0.0,
    }


def _captions_of(workspace: str, parts: Sequence[Part]) -> Csr:
    """The concepts that the captions of these parts' pairs name."""
    manifest = tables.read_manifest(workspace, "pair_concepts")
    by_name = {part.name: part for part in manifest.parts}
    return concatenate(
        [
            Csr.from_list_array(
                tables.read_file(part_address(manifest, by_name[part.name]), ["concept_ids"]).column(0)
            )
            for part in parts
        ]
    )


def _most_frequent(concepts: Manifest, captions: Csr) -> list[tuple[str, int]]:
    """As mining counted them; those of a given list as often as the captions looked at name them."""
    words = tables.read_parts(concepts, ["concept", "count"])
    counts = words.column("count").to_numpy()
    if not counts.any():
        counts = np.bincount(captions.values, minlength=len(counts))
    best = np.argsort(-counts, kind="stable")[:_CONCEPTS_SHOWN]
    names = words.column("concept").take(pa.array(best)).to_pylist()
    return [(name, int(count)) for name, count in zip(names, counts[best], strict=True) if count]


def _spread(parts: Sequence[Part], count: int, seed: int) -> list[Part]:
    chosen = np.random.default_rng(seed).permutation(len(parts))[:count]
    return [parts[number] for number in sorted(chosen)]


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    return np.concatenate(
        [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks] or [np.zeros(0)]
    )


def _added(in_caption: pa.ChunkedArray) -> np.ndarray:
    """Concepts of each archive that the pair's caption lacks."""
    lists = Csr.from_list_array(in_caption)
    lacking = np.concatenate([[0], np.cumsum(~lists.values.astype(bool))])
    return np.diff(lacking[lists.offsets])


def _sample_pairs(workspace: str, archives: Manifest, count: int, seed: int) -> list[PairView]:
    """Pairs spread over the parts, with their nearest neighbours, read from few files."""
    random = np.random.default_rng(seed)
    filled = [part for part in archives.parts if part.rows]
    parts = _spread(filled, min(count, 24), seed)
    if sum(part.rows for part in parts) < count:
        parts = filled
    sampled: list[dict[str, Any]] = []
    for part, share in zip(parts, _shares([part.rows for part in parts], count), strict=True):
        rows = tables.read_file(part_address(archives, part))
        chosen = np.sort(random.permutation(len(rows))[:share])
        sampled.extend(rows.take(pa.array(chosen)).to_pylist())
    for row in sampled:
        for name in ("neighbours", "similarities"):
            row[name] = row[name][:_NEIGHBOURS_SHOWN]
    return _views(workspace, sampled)


def _shares(rows: list[int], count: int) -> list[int]:
    """Equal shares of ``count``; a part with fewer rows gives all it has and the others more."""
    shares = [0] * len(rows)
    for done, place in enumerate(sorted(range(len(rows)), key=rows.__getitem__)):
        shares[place] = min(rows[place], -(-count // (len(rows) - done)))
        count -= shares[place]
    return shares


def load_pair(workspace: str, key: str) -> PairView:
    """One pair by its key, without its images.

    Raises:
        UserError: no such pair; the message has the nearest keys.
    """
    archives = tables.read_manifest(workspace, "archives")
    candidates = _parts_of_key(archives, key)
    for part in candidates:
        rows = tables.read_file(part_address(archives, part))
        keys = rows.column("key").to_pylist()
        if key in keys:
            return _views(workspace, rows.slice(keys.index(key), 1).to_pylist(), images=False)[0]
    known = [
        name
        for part in (candidates or archives.parts)[:3]
        for name in tables.read_file(part_address(archives, part), ["key"]).column("key").to_pylist()
    ]
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.0)
    raise UserError(
        f"'{key}' is not in the archives of {workspace}; keys look like {', '.join(near) or 'nothing here'}"
    )


def _parts_of_key(manifest: Manifest, key: str) -> list[Part]:
    """A key is corpus/shard/sample and a part is named corpus/shard-number."""
    shard = key.rpartition("/")[0]
    return [part for part in manifest.parts if part.name.rpartition("-")[0] == shard]


def _views(workspace: str, rows: Iterable[dict[str, Any]], images: bool = True) -> list[PairView]:
    """Archive rows with captions and, if asked for, images."""
    chosen = list(rows)
    wanted = {row["key"] for row in chosen} | {key for row in chosen for key in row["neighbours"]}
    pairs = _read_pairs(workspace, wanted, images)
    views = []
    for row in chosen:
        caption, image = pairs.get(row["key"], ("", b""))
        reasons = map(why, row["votes"], row["named_by"], row["probe"])
        lists = (row["concepts"], row["scores"], row["clusters"], row["in_caption"], reasons)
        concepts = [Concept(*entry) for entry in zip(*lists, strict=True)]
        neighbours = [
            Neighbour(key, similarity, *pairs.get(key, ("", b"")))
            for key, similarity in zip(row["neighbours"], row["similarities"], strict=True)
        ]
        views.append(PairView(row["key"], caption, image, concepts, neighbours))
    return views


def _read_pairs(workspace: str, keys: set[str], images: bool) -> dict[str, tuple[str, bytes]]:
    """Caption and image (or nothing in its place) of some keys; only row groups that hold one are read."""
    manifest = tables.read_manifest(workspace, "pairs")
    shards = {key.rpartition("/")[0] for key in keys}
    ordered = sorted(keys)
    columns = ["caption", "image"] if images else ["caption"]
    found: dict[str, tuple[str, bytes]] = {}
    for part in manifest.parts:
        if part.name.rpartition("-")[0] not in shards:
            continue
        filesystem, path = resolve(part_address(manifest, part))
        with filesystem.open_input_file(path) as source:
            file = pq.ParquetFile(source)
            for group in range(file.num_row_groups):
                if not _may_hold(file, group, ordered):
                    continue
                names = file.read_row_group(group, ["key"]).column("key").to_pylist()
                rows = [row for row, name in enumerate(names) if name in keys]
                if rows:
                    taken = file.read_row_group(group, columns).take(pa.array(rows)).to_pylist()
                    for row, values in zip(rows, taken, strict=True):
                        found[names[row]] = (values["caption"], values.get("image") or b"")
    return found


def _may_hold(file: pq.ParquetFile, group: int, ordered: Sequence[str]) -> bool:
    """Whether one of the ordered keys lies between a row group's first and last."""
    known = file.metadata.row_group(group).column(file.schema_arrow.get_field_index("key")).statistics
    if known is None or not known.has_min_max:
        return True
    place = bisect_left(ordered, known.min)
    return place < len(ordered) and ordered[place] <= known.max
