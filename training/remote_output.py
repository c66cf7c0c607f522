"""The output of a training on a store: a folder on this machine whose files follow there.

TensorBoard and torch write local files, and a store knows neither appending nor links. What a process writes
goes to a temporary folder of its own; after each checkpoint, and at the end, what is new in it is copied.
"""

from __future__ import annotations

import posixpath
import shutil
import sys
import tempfile
import weakref
from pathlib import Path
from types import TracebackType

import pyarrow.fs as pafs

from configs.errors import UserError
from storage.addresses import is_local, is_object_store, list_folder, make_folder, resolve
from training.checkpoints import outdated

__all__ = ["RemoteOutput", "remote_output"]


def remote_output(address: str) -> RemoteOutput | None:
    """Of an output that is no folder of this machine; None of one that is.

    Raises:
        UserError: the store cannot be written to.
    """
    return None if is_local(resolve(address)[0]) else RemoteOutput(address)


class RemoteOutput:
    """A local folder and where its files belong; a context that ends with the last of them copied."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._store, self._path = resolve(address)
        self.folder = Path(tempfile.mkdtemp(prefix="cocu-training-"))
        self._removal = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._sent: dict[str, tuple[int, int]] = {}
        try:
            self._store.create_dir(self._path, recursive=True)
        except OSError as error:
            raise UserError(f"train.output={address}: nothing can be written there: {error}") from None

    def fetch(self, name: str) -> None:
        """Copy a file from the store, if it is there.

        Raises:
            UserError: it cannot be read.
        """
        source = posixpath.join(self._path, name)
        try:
            if self._store.get_file_info(source).type != pafs.FileType.File:
                return
            self._copy(self._store, source, pafs.LocalFileSystem(), str(self.folder / name))
        except OSError as error:
            raise UserError(f"{self.address}/{name}: cannot be read: {error}") from None
        self._sent[name] = _state(self.folder / name)

    def send(self, keep: int = 0) -> None:
        """Copy what is new; with ``keep``, delete checkpoints of steps but the newest, also of earlier runs.

        Raises:
            OSError: the store failed; the next call copies what is left.
        """
        files = sorted(
            path for path in self.folder.rglob("*") if path.is_file() and path.suffix != ".partial"
        )
        # Steps first, so that last.pt is never newer than they are.
        for path in sorted(files, key=lambda path: not path.name.startswith("step-")):
            name, state = path.relative_to(self.folder).as_posix(), _state(path)
            if self._sent.get(name) != state:
                self._replace(path, posixpath.join(self._path, name))
                self._sent[name] = state
        there = {info.base_name: info.path for info in list_folder(self._store, self._path)} if keep else {}
        for name in outdated(there, keep):
            self._store.delete_file(there[name])

    def try_to_send(self, keep: int) -> None:
        """``send``, but a store that fails costs a line: the next checkpoint brings what this one did not."""
        try:
            self.send(keep)
        except OSError as error:
            print(f"train: {self.address}: not copied this time: {error}", file=sys.stderr, flush=True)

    def _replace(self, path: Path, target: str) -> None:
        local = pafs.LocalFileSystem()
        make_folder(self._store, posixpath.dirname(target))
        if is_object_store(self._store):  # there a file appears whole or not at all
            self._copy(local, str(path), self._store, target)
            return
        self._copy(local, str(path), self._store, f"{target}.next")
        if self._store.get_file_info(target).type != pafs.FileType.NotFound:
            self._store.delete_file(target)
        self._store.move(f"{target}.next", target)

    @staticmethod
    def _copy(source: pafs.FileSystem, path: str, target: pafs.FileSystem, target_path: str) -> None:
        pafs.copy_files(path, target_path, source, target, chunk_size=8 << 20, use_threads=False)

    def __enter__(self) -> RemoteOutput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            self.send()
        except OSError as error:
            told = f"{self.address}: the last files were not copied ({error}); they are in {self.folder}"
            self._removal.detach()  # nothing is lost
            if kind is None:
                raise UserError(told) from None
            print(f"train: {told}", file=sys.stderr, flush=True)
            return
        self._removal()


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
