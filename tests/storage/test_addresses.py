"""Addresses of stores that Arrow or fsspec reach, and what is asked of them."""

from __future__ import annotations

import sys
from pathlib import Path

import fsspec  # noqa: F401  (its registry)
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow._fs import _MockFileSystem

from configs.errors import UserError
from storage import addresses
from storage.addresses import resolve
from storage.listing import look_up
from storage.patterns import expand, find
from storage.small_files import write_atomically


class _Memory(MemoryFileSystem):
    """fsspec's file system in memory, for Azure's containers."""

    protocol = ("abfss",)
    store: dict = {}  # noqa: RUF012
    pseudo_dirs: list = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        path = path.removeprefix("abfss://").replace("@account.dfs.core.windows.net", "")
        return "/" + path.strip("/")


@pytest.fixture
def azure(monkeypatch):
    monkeypatch.setattr(_Memory, "store", {})
    monkeypatch.setattr(_Memory, "pseudo_dirs", [""])
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "abfss", _Memory)
    addresses._azure.cache_clear()
    _Memory().mkdir("/container")
    yield "abfss://container@account.dfs.core.windows.net"
    addresses._azure.cache_clear()


def test_an_address_of_azure_is_read_written_and_expanded_through_fsspec(azure):
    for name in ("b", "a"):
        write_atomically(f"{azure}/in/{name}.tar", name.encode())
    assert expand(f"{azure}/in/*.tar") == [f"{azure}/in/a.tar", f"{azure}/in/b.tar"]
    assert _Memory().cat("/container/in/b.tar") == b"b"
    filesystem, path = resolve(f"{azure}/in/a.tar")
    with filesystem.open_input_stream(path) as stream:
        assert stream.read() == b"a"


def test_azure_without_its_package_is_one_sentence(monkeypatch):
    def missing(_root):
        raise ImportError("Install adlfs to access Azure Datalake Gen2")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    addresses._azure.cache_clear()
    with pytest.raises(UserError, match="need the package adlfs: pip install adlfs"):
        resolve("abfss://container@account.dfs.core.windows.net/in")


def test_google_cloud_storage_is_arrows_own():
    filesystem, path = resolve("gs://bucket/a/b")
    assert (filesystem.type_name, path) == ("gcs", "bucket/a/b")
    with pytest.raises(UserError, match="must hold no credentials"):
        resolve("gs://KEY:secret@bucket/x")


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "0.tar").touch()
    assert expand("~/shards/*.tar") == [f"{tmp_path}/shards/0.tar"]
    assert not Path("~").exists()


def test_sizes_and_times_come_with_the_names(tmp_path):
    for name, text in (("a.tar", "123"), ("b.tar", "12")):
        (tmp_path / name).write_text(text)
    (tmp_path / "c.tar").mkdir()
    found = find(f"{tmp_path}/*.tar")
    assert [(entry.size, entry.is_folder) for entry in found] == [(3, False), (2, False), (0, True)]
    assert [entry.modified for entry in found[:2]] == [
        (tmp_path / name).stat().st_mtime_ns for name in ("a.tar", "b.tar")
    ]
    assert find(f"{tmp_path}/{{b,a}}.tar") == [found[1], found[0]]


@pytest.mark.parametrize("count", [2, 40])
def test_what_is_missing_is_told_whether_asked_or_listed(monkeypatch, count):
    filesystem = _MockFileSystem()
    monkeypatch.setattr(addresses, "_s3", lambda: filesystem)
    filesystem.create_dir("bucket/in/folder.tar", recursive=True)
    wanted = [f"s3a://bucket/in/{number}.tar" for number in range(count)]
    for address in wanted[1:]:
        with filesystem.open_output_stream(resolve(address)[1]) as stream:
            stream.write(b"12345")
    found = look_up([*wanted, "s3a://bucket/in/folder.tar", "s3a://bucket/other/0.tar"])
    assert found[0] is None
    assert found[-1] is None
    assert found[-2] is not None
    assert found[-2].is_folder
    assert [(entry.address, entry.size) for entry in found[1:-2]] == [(name, 5) for name in wanted[1:]]
    with pytest.raises(UserError, match=f"bucket/in/0.tar: no such file .from .*0..{count - 1}"):
        expand(f"s3a://bucket/in/{{0..{count - 1}}}.tar")
