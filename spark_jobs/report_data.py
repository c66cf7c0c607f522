"""What the report and `explain` show, read from the tables with Arrow alone."""

from __future__ import annotations

import difflib
import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import UserError
from configs.schema import CocuConfig
from spark_jobs import tables
from spark_jobs.addresses import resolve
from spark_jobs.tables import Manifest, Part
from spark_jobs.units import part_address

__all__ = ["Concept", "Neighbour", "PairView", "ReportData", "load_pair", "load_report_data"]

_PARTS_LOOKED_AT = 200  # of the archives, for the distributions: half a million pairs


@dataclass
class Concept:
    """One concept of an archive."""

    name: str
    score: float
    cluster: int
    in_caption: bool


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
    index: dict[str, Any]
    caption_counts: np.ndarray
    added_counts: np.ndarray
    similarities: np.ndarray
    scores: np.ndarray
    looked_at: tuple[int, int]
    pairs: list[PairView]
    gap: dict[str, float] | None = None
    training: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    pictures: list[tuple[str, bytes]] = field(default_factory=list)


def load_report_data(workspace: str, config: CocuConfig) -> ReportData:
    """Read counts from manifests, distributions from some parts, and the sampled pairs.

    Raises:
        UserError: there are no archives yet.
    """
    archives = tables.read_manifest(workspace, "archives")
    found = {name: tables.find_manifest(workspace, name) for name in _TABLES}
    steps, rejects = [], []
    for name, manifest in found.items():
        if manifest is None:
            continue
        rows = manifest.extra["index"]["rows"] if name == "index" else manifest.rows
        rows_in = rows if name == "index" else manifest.rows_in
        steps.append(
            {
                "job": manifest.job,
                "table": name,
                "rows_in": rows_in,
                "rows_out": rows,
                "rejected": sum(manifest.rejects.values()),
                "seconds": manifest.seconds,
                "rate": rows_in / manifest.seconds if manifest.seconds else 0.0,
            }
        )
        rejects.extend((manifest.job, reason, count) for reason, count in manifest.rejects.items())
    concepts = found["concepts"]
    assert concepts is not None
    words = tables.read_parts(concepts, ["concept", "count"])
    ranked = sorted(
        zip(*(words.column(i).to_pylist() for i in (0, 1)), strict=True), key=lambda entry: -entry[1]
    )
    looked = _spread(archives.parts, _PARTS_LOOKED_AT, config.report.seed)
    columns = ["key", "scores", "in_caption", "similarities"]
    rows = pa.concat_tables([tables.read_file(part_address(archives, part), columns) for part in looked])
    added, named = _counts(rows)
    data = ReportData(
        title=posixpath.basename(workspace.rstrip("/")),
        steps=steps,
        rejects=rejects,
        concepts=ranked[:40],
        vocabulary=len(words),
        leaks=concepts.extra.get("benchmark_classes", {}),
        index=found["index"].extra["index"] if found["index"] else {},
        caption_counts=named,
        added_counts=added,
        similarities=_flat(rows.column("similarities")),
        scores=_flat(rows.column("scores")),
        looked_at=(len(rows), archives.rows),
        pairs=_sample_pairs(workspace, archives, config.report.samples, config.report.seed),
    )
    _add_results(workspace, data)
    return data


_TABLES = ("pairs", "image_embeddings", "concepts", "pair_concepts", "index", "archives", "training_set")


def _add_results(workspace: str, data: ReportData) -> None:
    """The gap, training and evaluation, where they have been."""
    summary = _read_json(tables.join(workspace, "summary.json")) or {}
    data.gap = summary.get("gap")
    data.training = _read_json(tables.join(workspace, "training", "summary.json"))
    data.evaluation = _read_json(tables.join(workspace, "evaluation", "results.json"))
    for label, folder in (("training", "training"), ("evaluation", "evaluation")):
        for name, content in _read_pictures(tables.join(workspace, folder)):
            data.pictures.append((f"{label}: {name}", content))


def _read_json(address: str) -> dict[str, Any] | None:
    filesystem, path = resolve(address)
    try:
        with filesystem.open_input_stream(path) as stream:
            values = json.loads(stream.read())
    except (FileNotFoundError, ValueError, OSError):
        return None
    return values if isinstance(values, dict) else None


def _read_pictures(address: str) -> list[tuple[str, bytes]]:
    import pyarrow.fs as pafs

    filesystem, path = resolve(tables.join(address, "pictures"))
    infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    pictures = []
    for info in sorted(infos, key=lambda info: info.base_name)[:12]:
        if info.base_name.endswith((".png", ".jpg")) and (info.size or 0) < 2_000_000:
            with filesystem.open_input_stream(info.path) as stream:
                pictures.append((info.base_name.rpartition(".")[0], stream.read()))
    return pictures


def _spread(parts: Sequence[Part], count: int, seed: int) -> list[Part]:
    chosen = np.random.default_rng(seed).permutation(len(parts))[:count]
    return [parts[number] for number in sorted(chosen)]


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    return np.concatenate(
        [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks] or [np.zeros(0)]
    )


def _counts(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Concepts of the archive that the caption lacks and has, for each pair."""
    added, named = [], []
    for chunk in rows.column("in_caption").chunks:
        offsets = chunk.offsets.to_numpy()
        flags = chunk.values.to_numpy(zero_copy_only=False).astype(np.int64)
        sums = np.concatenate([[0], np.cumsum(flags)])
        inside = sums[offsets[1:]] - sums[offsets[:-1]]
        named.append(inside)
        added.append(np.diff(offsets) - inside)
    return np.concatenate(added), np.concatenate(named)


def _sample_pairs(workspace: str, archives: Manifest, count: int, seed: int) -> list[PairView]:
    """Pairs spread over the parts, read from few files."""
    random = np.random.default_rng(seed)
    parts = _spread([part for part in archives.parts if part.rows], min(count, 24), seed)
    views: list[PairView] = []
    for number, part in enumerate(parts):
        share = count // len(parts) + (number < count % len(parts))
        rows = tables.read_file(part_address(archives, part))
        chosen = np.sort(random.permutation(len(rows))[:share])
        views.extend(_views(workspace, rows.take(pa.array(chosen)).to_pylist()))
    return views


def load_pair(workspace: str, key: str) -> PairView:
    """One pair by its key.

    Raises:
        UserError: no such pair; the message has the nearest keys.
    """
    archives = tables.read_manifest(workspace, "archives")
    candidates = _parts_of_key(archives, key)
    for part in candidates:
        rows = tables.read_file(part_address(archives, part))
        keys = rows.column("key").to_pylist()
        if key in keys:
            return _views(workspace, rows.slice(keys.index(key), 1).to_pylist())[0]
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


def _views(workspace: str, rows: Iterable[dict[str, Any]]) -> list[PairView]:
    chosen = list(rows)
    wanted = {row["key"] for row in chosen} | {key for row in chosen for key in row["neighbours"]}
    pairs = _read_pairs(workspace, wanted)
    views = []
    for row in chosen:
        caption, image = pairs.get(row["key"], ("", b""))
        lists = (row["concepts"], row["scores"], row["clusters"], row["in_caption"])
        concepts = [Concept(*entry) for entry in zip(*lists, strict=True)]
        neighbours = [
            Neighbour(key, similarity, *pairs.get(key, ("", b"")))
            for key, similarity in zip(row["neighbours"], row["similarities"], strict=True)
        ]
        views.append(PairView(row["key"], caption, image, concepts, neighbours))
    return views


def _read_pairs(workspace: str, keys: set[str]) -> dict[str, tuple[str, bytes]]:
    """Caption and image of some keys; of each part only the row groups that may hold one are read."""
    manifest = tables.read_manifest(workspace, "pairs")
    shards = {key.rpartition("/")[0] for key in keys}
    found: dict[str, tuple[str, bytes]] = {}
    for part in manifest.parts:
        if part.name.rpartition("-")[0] not in shards:
            continue
        filesystem, path = resolve(part_address(manifest, part))
        with filesystem.open_input_file(path) as source:
            file = pq.ParquetFile(source)
            for group in range(file.num_row_groups):
                names = file.read_row_group(group, ["key"]).column("key").to_pylist()
                rows = [row for row, name in enumerate(names) if name in keys]
                if not rows:
                    continue
                columns = file.read_row_group(group, ["caption", "image"]).take(pa.array(rows)).to_pylist()
                found.update(
                    {
                        names[row]: (values["caption"], values["image"])
                        for row, values in zip(rows, columns, strict=True)
                    }
                )
    return found


def rejects_by_reason(rejects: Iterable[tuple[str, str, int]]) -> dict[str, int]:
    """Summed over the stages."""
    total: Counter[str] = Counter()
    for _, reason, count in rejects:
        total[reason] += count
    return dict(total.most_common())
