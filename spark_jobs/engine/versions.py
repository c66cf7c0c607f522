"""What the results of a task depend on besides its input: Python, packages, this project's code.

Functions travel to executors by name, so an executor with another numpy, or with an older cocu.zip, computes
something else and says nothing. An application asks the executors it has before its first wave
(:func:`check_executors`); those that join later compare themselves with the driver before their first task
(:func:`insist_on`).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.resources
import platform
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import UserError
from configs.schema import ClipConfig
from spark_jobs.engine.task_errors import ExecutorFault

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = [
    "PACKAGES",
    "check_executors",
    "differences",
    "insist_on",
    "model_files",
    "package_version",
    "versions",
]

PACKAGES = ("pyspark", "pyarrow", "numpy", "torch", "open_clip_torch", "faiss-cpu", "pillow", "textblob")
"""Distributions that shape rows. Where faiss-gpu is installed it stands for faiss-cpu."""

_CODE = ("configs", "storage", "corpora", "curation", "models", "spark_jobs")


def package_version(name: str) -> str:
    """The installed version of a distribution, or ``missing``."""
    names = (name, "faiss-gpu") if name == "faiss-cpu" else (name,)
    for candidate in names:
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "missing"


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Name -> version of Python, of each of ``PACKAGES`` and of this project's code, in this process."""
    found = {name: package_version(name) for name in PACKAGES}
    if found["pyspark"] == "missing":  # executors take it from Spark's own folder, which is no distribution
        import pyspark

        found["pyspark"] = pyspark.__version__
    return {"python": platform.python_version(), **found, "code": _code_digest()}


def _code_digest() -> str:
    """Eight hex digits of the sources, whether they lie in a folder or in cocu.zip."""
    digest = hashlib.sha256()
    for package in _CODE:
        for name, file in _sources(importlib.resources.files(package), package):
            digest.update(f"{name}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def _sources(folder: Traversable, name: str) -> Iterator[tuple[str, Traversable]]:
    """Name and place of each Python file below a folder, sub-packages too, in one order everywhere."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _sources(entry, f"{name}/{entry.name}")
        elif entry.name.endswith(".py"):
            yield f"{name}/{entry.name}", entry


def differences(driver: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """In words, what an executor has otherwise than the driver."""
    return [
        f"{name} {here.get(name, 'missing')} (driver: {version})"
        for name, version in driver.items()
        if here.get(name) != version
    ]


def model_files(clip: ClipConfig) -> tuple[tuple[str, str, int], ...]:
    """(option, path, bytes) of the model's files that the driver has; tags of open_clip are none."""
    options = (("clip.name", clip.name), ("clip.pretrained", clip.pretrained))
    return tuple(
        (option, value, Path(value).stat().st_size) for option, value in options if Path(value).is_file()
    )


@lru_cache(maxsize=4)
def insist_on(driver: tuple[tuple[str, str], ...]) -> None:
    """Called in a Python worker, once: it must have the driver's versions.

    Raises:
        ExecutorFault: what differs, and on which host.
    """
    if text := _version_fault(driver):
        raise ExecutorFault(text)


def _version_fault(driver: tuple[tuple[str, str], ...]) -> str:
    other = differences(dict(driver), versions())
    if not other:
        return ""
    return (
        f"executor on {socket.gethostname()} has {', '.join(other)}; ship the driver's environment and code to it "
        "(make package, then spark-submit --archives dist/environment.tar.gz#environment "
        "--py-files dist/cocu.zip)"
    )


def _model_fault(files: Sequence[tuple[str, str, int]]) -> str:
    for option, path, size in files:
        found = Path(path).stat().st_size if Path(path).is_file() else None
        if found != size:
            what = "lacks" if found is None else f"has another file ({found} bytes, driver: {size}) in"
            return (
                f"executor on {socket.gethostname()} {what} {option}={path}; put the same file on every host or "
                "use a shared path"
            )
    return ""


_asked: set[tuple[object, ...]] = set()


def check_executors(session: SparkSession, clip: ClipConfig | None = None) -> None:
    """Ask every executor that is there for its versions and, where ``clip`` is given, for the model's files.

    Once an application; a second or two. In local mode the workers run the driver's own Python and disk.

    Raises:
        UserError: the first executor that differs, and in what.
    """
    context = session.sparkContext
    files = model_files(clip) if clip is not None else ()
    question = (context.applicationId, files)
    if context.master.startswith("local") or question in _asked:
        return
    driver = tuple(versions().items())

    def ask(_numbers: Iterator[int]) -> Iterator[str]:
        time.sleep(0.2)  # long enough that no executor answers twice while another waits
        yield _version_fault(driver) or _model_fault(files)

    tasks = 2 * max(1, context.defaultParallelism)
    faults = context.parallelize(range(tasks), tasks).mapPartitions(ask).collect()
    for fault in faults:
        if fault:
            raise UserError(fault)
    _asked.add(question)
