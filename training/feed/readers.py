"""Row groups of the training set as Arrow tables, in a given order: by Petastorm, or by pyarrow alone.

Petastorm gets the list of part files, never their folder, whose metadata can run code.
"""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from configs.errors import UserError
from storage.addresses import resolve
from training.feed.training_set import COLUMNS, RowGroup

__all__ = ["READERS", "chosen", "read_groups"]

READERS = ("petastorm", "arrow")
_THREADS = 2
"""Threads reading ahead. Measured: two reach what more do (packages: 46,000 rows/s by one, 56-82,000 by two)."""


def chosen(reader: str) -> str:
    """One of :data:`READERS`: what ``train.reader`` names, and of ``auto`` Petastorm where it is installed.

    Installed and broken is not the same as not installed: that is told when it is opened.
    """
    if reader == "auto":
        return "petastorm" if importlib.util.find_spec("petastorm") else "arrow"
    return reader


def read_groups(
    reader: str, groups: Sequence[RowGroup], columns: Sequence[str] = COLUMNS
) -> Iterator[pa.Table]:
    """One table a row group, in the order of ``groups``, some read ahead; close it to stop early.

    Args:
        reader: ``train.reader``.
        groups: What to read.
        columns: Of the training set.

    Raises:
        UserError: a file is gone or damaged, or Petastorm is asked for and not installed.
    """
    if not groups:
        return iter(())
    return {"petastorm": _by_petastorm, "arrow": _by_arrow}[chosen(reader)](groups, list(columns))


def _by_arrow(groups: Sequence[RowGroup], columns: list[str]) -> Iterator[pa.Table]:
    form = pads.ParquetFileFormat()

    def read(group: RowGroup) -> pa.Table:
        filesystem, path = resolve(group.file)
        fragment = form.make_fragment(path, filesystem, row_groups=[group.number])
        return fragment.to_table(columns=columns, use_threads=False)

    with ThreadPoolExecutor(_THREADS) as pool:
        ahead: deque[tuple[RowGroup, Future[pa.Table]]] = deque()
        try:
            for group in groups:
                ahead.append((group, pool.submit(read, group)))
                if len(ahead) > 2 * _THREADS:
                    yield _result(*ahead.popleft())
            while ahead:
                yield _result(*ahead.popleft())
        finally:
            for _, future in ahead:
                future.cancel()


def _result(group: RowGroup, future: Future[pa.Table]) -> pa.Table:
    try:
        return future.result()
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(group, error) from error


def _damaged(group: RowGroup, error: Exception) -> UserError:
    return UserError(
        f"{group.file}, row group {group.number}: cannot be read ({' '.join(str(error).split())[:200]}); "
        "run export_training with verify=true, or overwrite=[training_set] if that finds nothing"
    )


def _by_petastorm(groups: Sequence[RowGroup], columns: list[str]) -> Iterator[pa.Table]:
    reader = _open_petastorm(groups, columns)
    early: dict[int, pa.Table] = {}
    try:
        for place, group in enumerate(groups):
            while place not in early:
                table = _next(reader, group)
                early[int(table.schema.metadata[_PLACE])] = table
            table = early.pop(place)
            if table.num_rows != group.rows:
                raise _damaged(group, ValueError(f"{table.num_rows} rows where the footer says {group.rows}"))
            yield table.replace_schema_metadata(None)
    finally:
        reader.stop()
        with contextlib.suppress(Exception):  # a worker that failed has told its error already
            reader.join()


_PLACE = b"place"
_TRIES = 1000


def _next(reader: Any, group: RowGroup) -> pa.Table:
    """The next table from Petastorm's workers, which must come: some were ordered and have not arrived.

    Petastorm's pool may say that all is done while its ventilator is still handing out the first row groups
    (it compares two counters that are both still 0); taken at its word, an epoch would lose rows in silence.
    The pool goes on working after that, so asking again is enough; the sum of rows is checked by the caller.
    """
    for _ in range(_TRIES):
        try:
            return next(reader)
        except StopIteration:
            continue
        except UserError:
            raise
        except Exception as error:
            raise _damaged(group, error) from error
    raise _damaged(group, RuntimeError("Petastorm's workers ended without it"))


def _open_petastorm(groups: Sequence[RowGroup], columns: list[str]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from petastorm.arrow_reader_worker import ArrowReaderWorker
            from petastorm.fs_utils import get_filesystem_and_path_or_paths
            from petastorm.reader import Reader
            from petastorm.workers_pool import EmptyResultError
            from petastorm.workers_pool.thread_pool import ThreadPool
    except ImportError as error:
        raise UserError(
            f"train.reader=petastorm: Petastorm does not load here ({error}); install the extra 'train', or write "
            "train.reader=arrow"
        ) from None

    class ArrowResults:
        """Hands on tables as they are; Petastorm's own turns them into NumPy and widens every string."""

        batched_output = True

        def read_next(self, pool: Any, _schema: Any, _ngram: Any) -> pa.Table:
            try:
                return pool.get_results()
            except EmptyResultError:
                raise StopIteration from None

    class Worker(ArrowReaderWorker):
        """Petastorm's worker, which also says which row group a table is."""

        @staticmethod
        def new_results_queue_reader() -> ArrowResults:
            return ArrowResults()

        def process(self, piece_index: int, worker_predicate: Any, shuffle_row_drop_partition: Any) -> None:
            self._place = places[piece_index]
            super().process(piece_index, worker_predicate, shuffle_row_drop_partition)

        def _load_rows(self, pq_file: pq.ParquetFile, piece: Any, _drop: Any) -> pa.Table:
            table = pq_file.read_row_group(piece.row_group, columns=columns, use_threads=False)
            return table.replace_schema_metadata({_PLACE: str(self._place)})

    class OrderedReader(Reader):
        """Petastorm's reader over chosen row groups, in the order they are wanted."""

        def _filter_row_groups(
            self, _dataset: Any, row_groups: list[Any], *_rest: Any
        ) -> tuple[list[int], None]:
            known = {(piece.path, piece.row_group): index for index, piece in enumerate(row_groups)}
            order = [known[path_of[group.file], group.number] for group in groups]
            places.update({index: place for place, index in enumerate(order)})
            return order, None

    # Its threads use legacy parts of pyarrow 14, the newest that Petastorm knows, and say so for each row group.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"petastorm\.")
    places: dict[int, int] = {}
    files = list(dict.fromkeys(group.file for group in groups))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            filesystem, paths = get_filesystem_and_path_or_paths([_url(file) for file in files])
        except Exception as error:  # whatever its drivers (s3fs, libhdfs) raise when they are not there
            raise UserError(
                f"{files[0]}: Petastorm cannot open this address ({' '.join(str(error).split())[:160]}); write "
                "train.reader=arrow, which reads the same rows"
            ) from error
        path_of = dict(zip(files, paths, strict=True))
        return OrderedReader(
            filesystem,
            paths,
            schema_fields=list(columns),
            worker_class=Worker,
            reader_pool=ThreadPool(_THREADS, 2 * _THREADS),
            shuffle_row_groups=False,
            num_epochs=1,
            is_batched_reader=True,
        )


def _url(address: str) -> str:
    """Petastorm takes URLs; s3a is Hadoop's name for s3."""
    if "://" not in address:
        return f"file://{address}"
    return address.replace("s3a://", "s3://", 1)
