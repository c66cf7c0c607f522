"""Archives from anywhere: a workspace of this software, Parquet, or JSON lines; only those of wanted keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.errors import UserError
from configs.json_files import read_json_lines
from storage import tables

__all__ = ["read_archives"]

_COLUMNS = ("concepts", "archive_concepts")


def read_archives(address: str, keys: Iterable[str]) -> dict[str, list[str]]:
    """key -> concepts, best first, of the keys that are wanted and there.

    Args:
        address: a workspace (its table ``archives``), a folder of .parquet files, a .parquet file with the columns
            key and concepts, or JSON lines {key, concepts}.
        keys: the wanted ones.

    Raises:
        UserError: nothing there, columns missing, a key that stands twice, or none of the wanted keys.
    """
    wanted = pa.array(sorted(set(keys)), pa.string())
    found: dict[str, list[str]] = {}
    other = "nothing"
    for batch in _batches(address):
        other = str(batch.column(0)[0].as_py()) if len(batch) else other
        chosen = batch.filter(pc.is_in(batch.column(0).cast(pa.string()), wanted))
        for key, concepts in zip(*(chosen.column(place).to_pylist() for place in (0, 1)), strict=True):
            if key in found:
                raise UserError(f"archives {address}: the key '{key}' stands twice; keep one line of it")
            found[str(key)] = [concept for concept in concepts or () if concept]
    if not found:
        raise UserError(
            f"archives {address}: its keys, such as '{other}', are none of the truth's, such as '{wanted[0]}'; "
            "is it of another corpus?"
        )
    return found


def _batches(address: str) -> Iterator[pa.RecordBatch]:
    """Batches of (key, concepts)."""
    path = Path(address)
    if path.is_file():
        yield from _lines(path) if path.suffix in (".jsonl", ".json") else _parquet(path)
        return
    files = sorted(path.glob("*.parquet")) if path.is_dir() else []
    for file in files:
        yield from _parquet(file)
    if not files:
        yield from tables.iterate_batches(tables.read_manifest(address, "archives"), ["key", "concepts"])


def _parquet(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        file = pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"archives {path}: not a whole Parquet file ({str(error)[:100]}); name another"
        ) from None
    names = set(file.schema_arrow.names)
    column = next((name for name in _COLUMNS if name in names), None)
    if "key" not in names or column is None:
        raise UserError(
            f"archives {path}: needs the columns key and concepts, has {', '.join(sorted(names))[:200]}"
        )
    kind = file.schema_arrow.field(column).type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise UserError(f"archives {path}: its column {column} is {kind}, not a list of texts")
    for batch in file.iter_batches(columns=["key", column]):
        yield batch.select(["key", column])


def _lines(path: Path) -> Iterator[pa.RecordBatch]:
    keys, lists = [], []
    for where, row in read_json_lines(path, "archives"):
        concepts = row.get("concepts")
        if "key" not in row or not isinstance(concepts, list):
            raise UserError(f'{where}: write {{"key": "...", "concepts": ["...", ...]}}, best concept first')
        keys.append(str(row["key"]))
        lists.append([str(concept) for concept in concepts])
    yield pa.RecordBatch.from_arrays(
        [pa.array(keys, pa.string()), pa.array(lists, pa.list_(pa.string()))], ["key", "concepts"]
    )
