"""Whether a table's files are there and whole."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from storage.addresses import join, resolve
from storage.tables import Manifest
from storage.units import UnitRecord

__all__ = ["find_fault", "unit_files"]


def unit_files(manifest: Manifest, record: UnitRecord) -> list[tuple[str, int]]:
    """(address, rows) of a unit's part files; -1 rows for the file of its rejects, whose rows no record counts."""
    files = [(join(manifest.folder, part.file), part.rows) for part in record.parts]
    if record.reject_file:
        files.append((join(manifest.folder, record.reject_file), -1))
    return files


def find_fault(address: str, rows: int) -> str:
    """In words, what is wrong with a Parquet file that should hold ``rows`` rows (-1: any number); empty: nothing.

    All of it is read and decoded, a row group at a time. Parquet of this pyarrow has no checksums: a flipped bit in
    an image is not found.
    """
    filesystem, path = resolve(address)
    try:
        with filesystem.open_input_file(path) as source:
            file = pq.ParquetFile(source)
            groups = range(file.num_row_groups)
            found = sum(file.read_row_group(number, use_threads=False).num_rows for number in groups)
    except FileNotFoundError:
        return f"{address} is gone"
    except (pa.ArrowException, OSError) as error:
        return f"{address} is not a whole Parquet file ({' '.join(str(error).split())[:200]})"
    if rows not in (-1, found):
        return f"{address} holds {found} rows and the manifest says {rows}"
    return ""
