"""Reads the samples of a shard of any format, in order, whatever is broken.

No member of an archive is written to disk, and no name from an archive or a table becomes a path outside
of the folder it belongs to.
"""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator

import pyarrow as pa

from configs.schema import IngestConfig
from corpora.captions import Problem
from corpora.readers.csv_table import read_table
from corpora.readers.image_folder import read_folder
from corpora.readers.parquet import read_parquet
from corpora.readers.webdataset_tar import read_tar
from corpora.readers.yfcc14m import read_zip
from corpora.reasons import Reason
from corpora.samples import Sample
from corpora.shards import Shard
from storage.addresses import is_readable

__all__ = ["read_samples"]

_READERS = {
    "webdataset": read_tar,
    "parquet": read_parquet,
    "files": read_folder,
    "table": read_table,
    "yfcc14m": read_zip,
}
_DATA_ERRORS = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    pa.ArrowInvalid,
    pa.ArrowNotImplementedError,
    FileNotFoundError,
    PermissionError,
)


def read_samples(shard: Shard, limits: IngestConfig) -> Iterator[Sample]:
    """All samples of a shard. What is wrong with the shard itself is a last sample with a problem.

    Raises:
        OSError: the disk or the store failed, not the data: the task is to be tried again.
    """
    count = 0
    try:
        for sample in _READERS[shard.format](shard, limits):
            count += 1
            yield sample
        if not count and not shard.start:
            yield Sample("", problem=Problem(Reason.NO_SAMPLE, "the shard is empty"))
    except _DATA_ERRORS as error:
        yield _broken(error, count)
    except OSError as error:
        # pyarrow raises it for damaged compressed data as well as for failing stores.
        if not is_readable(shard.address):
            raise
        yield _broken(error, count)


def _broken(error: Exception, count: int) -> Sample:
    reason = Reason.TRUNCATED_SHARD if count else Reason.UNREADABLE_SHARD
    text = " ".join(str(error).split())[:200]
    return Sample("", problem=Problem(reason, f"{type(error).__name__}: {text} (after {count} samples)"))
