"""Bytes, memory and rates of each step: from what is measured in a workspace, else from the sizes of rows."""

from __future__ import annotations

from dataclasses import dataclass, field

from configs.schema import ClipConfig, CocuConfig
from curation.index.spec import TRAINED_ON, choose_index
from storage import tables
from storage.listing import look_up
from storage.tables import Manifest

__all__ = ["BUILDS", "Measured", "bytes_a_row", "measured", "memory", "table_bytes"]

BUILDS = {
    "ingest": ("pairs",),
    "embed_images": ("image_embeddings",),
    "find_duplicates": ("duplicates",),
    "select_pairs": ("selection",),
    "import_embeddings": ("pairs", "image_embeddings"),
    "mine_concepts": ("concepts", "pair_concepts"),
    "fit_probe": ("probe",),
    "build_index": ("index",),
    "build_archives": ("archives",),
    "export_training": ("training_set",),
}
"""Job -> what it writes."""

_PYTHON = 450 << 20  # with torch, open_clip and pyarrow (docs/clusters.md)
_IMAGE = 30_000  # bytes of a stored image: photos of 256 pixels
_BESIDE_A_VECTOR = 80  # bytes a row of an index: key, hash, offsets, the caption's concepts


@dataclass(frozen=True)
class Measured:
    """What a workspace tells of the machines that built it.

    ``rates``: rows a second of one task slot, by job; ``row_bytes``: bytes of a row, by table.
    """

    rates: dict[str, float] = field(default_factory=dict)
    row_bytes: dict[str, float] = field(default_factory=dict)


def table_bytes(manifest: Manifest) -> int:
    """Size of a table's part files; of a folder of mapped files 0."""
    return sum(entry.size for entry in look_up(manifest.files) if entry is not None)


def measured(workspace: str) -> Measured:
    """Rates and sizes of what is built in a workspace, whole or in part."""
    rates: dict[str, float] = {}
    row_bytes: dict[str, float] = {}
    for job, names in BUILDS.items():
        rows, seconds = 0, 0.0
        for name in names:
            manifest = tables.find_manifest(workspace, name)
            if manifest is None:
                manifest = _begun(workspace, name)
            if manifest is None or manifest.job != job:
                continue
            if name in ("index", "probe"):
                rows, seconds = manifest.extra[name]["rows"], manifest.seconds
            if not manifest.rows:
                continue
            row_bytes[name] = table_bytes(manifest) / manifest.rows
            if name != "concepts":  # its rows are no pairs
                rows = max(rows, manifest.rows_in)
                seconds += sum(unit.seconds for unit in manifest.units)
        if rows and seconds > 0:
            rates[job] = rows / seconds
    return Measured(rates, row_bytes)


def _begun(workspace: str, table: str) -> Manifest | None:
    """What is committed of a table that is being built, by whatever recipe."""
    recipe = tables.begun_recipe(workspace, table)
    return tables.read_progress(workspace, table, recipe) if recipe else None


def bytes_a_row(config: CocuConfig, table: str, known: Measured, source: float | None) -> float:
    """Bytes on disk of one row of a table (of the vocabulary: of a concept).

    Args:
        config: whose options shape the rows.
        table: its name.
        known: sizes that were measured go before formulas.
        source: bytes of a pair where it comes from, if they are known.
    """
    if table in known.row_bytes:
        return known.row_bytes[table]
    width = 2 * dimension(config)
    image = min(_IMAGE, source) if source else _IMAGE
    return {
        "pairs": image + 150,
        "image_embeddings": width + 40,
        "duplicates": 10,
        "selection": 15,
        "concepts": width + 40,
        "pair_concepts": 60,
        "probe": 2 * width + 4,
        "index": width + 8 + _BESIDE_A_VECTOR,
        "archives": 30 * config.archives.top + 500,
        "training_set": (image + 350) * (2 if config.export.webdataset else 1),
    }[table]


def dimension(config: CocuConfig) -> int:
    """Of the vectors: from the table, else from the model's configuration."""
    manifest = tables.find_manifest(config.workspace, "image_embeddings")
    if manifest is not None and manifest.files:
        return tables.read_schema(manifest.files[0]).field("embedding").type.byte_width // 2
    return _clip_size(config.clip)[0]


def memory(config: CocuConfig, job: str, rows: int, concepts: int) -> float:
    """Bytes of one Python worker at most, without what it maps (an index, a probe)."""
    part = config.ingest.rows_per_part * _IMAGE
    d = dimension(config)
    extra: dict[str, float] = {
        "ingest": 17 * config.ingest.max_pixels
        - _PYTHON
        + (300 << 20),  # a thin, transparent image at the limit
        "embed_images": part + _model(config.clip, config),
        # What is compared at a time; the task that groups takes 150 bytes for each image that has a copy: one in five.
        "find_duplicates": max(_training(config, rows, d), 500 << 20, 150 * rows / 5),
        "select_pairs": 50 << 20,
        "import_embeddings": 2 * config.ingest.rows_per_part * d * 8,
        "mine_concepts": _model(config.clip, config) if not config.concepts.embeddings else 100 << 20,
        "fit_probe": 4 * (concepts * d + d * d) * 2,
        "build_index": _training(config, rows, d),
        "build_archives": 500 << 20,
        "export_training": 3 * part,
    }
    return _PYTHON + extra[job]


def _clip_size(clip: ClipConfig) -> tuple[int, int, int]:
    # Jobs whose workers need no torch import this module, too: 1.5 s of each worker.
    from models.clip import clip_size

    return clip_size(clip)


def _model(clip: ClipConfig, config: CocuConfig) -> float:
    """Weights in fp32, a batch's activations (400 MB for ViT-B-16, growing with the weights) and decoded images."""
    _, parameters, pixels = _clip_size(clip)
    batch = config.embed.batch_size or 64
    return 4 * parameters + 2.7 * parameters * batch / 64 + 4 * batch * 3 * pixels


def _training(config: CocuConfig, rows: int, d: int) -> float:
    """The sample that the lists are trained on, in fp16 and fp32."""
    spec = choose_index(max(1, rows), d, config.index.memory_gb, config.index.kind, config.index.nlist)
    if spec.kind == "flat":
        return 100_000 * d * 2
    return min(rows, config.index.train_rows or TRAINED_ON * spec.nlist) * d * 6
