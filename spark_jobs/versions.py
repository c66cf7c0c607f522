"""What the results of a task depend on besides its input: Python, packages, this project's code.

Functions travel to executors by name, so an executor with another numpy, or with an older cocu.zip, computes
something else and says nothing. Every Python worker compares itself with the driver before its first task.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.resources
import platform
import socket
from collections.abc import Mapping
from functools import lru_cache

from configs.errors import UserError

__all__ = ["PACKAGES", "differences", "insist_on", "package_version", "versions"]

PACKAGES = ("pyspark", "pyarrow", "numpy", "torch", "open_clip_torch", "faiss-cpu", "pillow", "textblob")
"""Distributions that shape rows. Where faiss-gpu is installed it stands for faiss-cpu."""

_CODE = ("configs", "curation", "models", "spark_jobs")


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
        for file in sorted(importlib.resources.files(package).iterdir(), key=lambda entry: entry.name):
            if file.name.endswith(".py"):
                digest.update(f"{package}/{file.name}\n".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def differences(driver: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """In words, what an executor has otherwise than the driver."""
    return [
        f"{name} {here.get(name, 'missing')} (driver: {version})"
        for name, version in driver.items()
        if here.get(name) != version
    ]


@lru_cache(maxsize=4)
def insist_on(driver: tuple[tuple[str, str], ...]) -> None:
    """Called in a Python worker, once: it must have the driver's versions.

    Raises:
        UserError: what differs, and on which host.
    """
    other = differences(dict(driver), versions())
    if other:
        raise UserError(
            f"executor on {socket.gethostname()} has {', '.join(other)}; ship the driver's environment and code to it "
            "(make package, then spark-submit --archives dist/environment.tar.gz#environment "
            "--py-files dist/cocu.zip)"
        )
