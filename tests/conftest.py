"""Fixtures of all tests: one Spark session, real data where there is some."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# Before torch or NumPy start their thread pools: the tests' processes share few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
# JVMs of tests live shortly: what Java's second compiler makes faster, it has cost before.
os.environ.setdefault("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
os.environ.setdefault("SPARK_DAEMON_JAVA_OPTS", os.environ["SPARK_SUBMIT_OPTS"])
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

import pytest

import models  # noqa: F401  (declares torchvision's operators before anything imports it)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side, files with slow tests come first, so that no process is left with one when the others are done."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def spark() -> Iterator[object]:
    """A real Spark session with two task slots, shared by all tests of a run."""
    from configs.schema import CocuConfig, SparkConfig
    from spark_jobs.engine.session import open_session

    session = open_session(CocuConfig(spark=SparkConfig(master="local[2]", app_name="cocu-tests")))
    yield session
    session.stop()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photos and captions, or a skip where there is none."""
    folder = os.environ.get("COCU_REAL_DATA")
    if not folder:
        pytest.skip("COCU_REAL_DATA is not set: no real photos here")
    return Path(folder)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """An S3 server with one bucket, `s3a://bucket`, to which this process and those it starts are led."""
    from storage import addresses
    from tests.harness.object_store import object_store

    with object_store() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        addresses._s3.cache_clear()
        yield server
    addresses._s3.cache_clear()


@pytest.fixture
def limited() -> Iterator[Callable[..., object]]:
    """Calls a function while no file may grow beyond so many bytes, which is how a full disk looks to a program."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def call(size: int, function: Callable[..., object], *arguments: object) -> object:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            return function(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return call
