"""A standalone cluster of real processes."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.harness.processes import environment, free_port, kill_all, tied, wait_for


@dataclass
class Worker:
    """A worker process of the cluster; ``prefix`` is a command that runs the rest of the line."""

    cores: int = 1
    memory: str = "1g"
    prefix: Sequence[str] = ()
    host: str = "127.0.0.1"


@contextlib.contextmanager
def standalone_cluster(
    folder: Path,
    workers: Sequence[Worker] = (Worker(), Worker(host="127.0.0.2")),
    conf: dict[str, str] | None = None,
) -> Iterator[str]:
    """A Spark master and workers as processes of this machine; yields spark://...

    The workers have hosts of their own: Spark makes no second attempt of a task on the first one's host.
    """
    import pyspark

    home = Path(pyspark.__file__).parent
    port = free_port()
    url = f"spark://127.0.0.1:{port}"
    folder.mkdir(parents=True, exist_ok=True)
    # Executors killed on purpose must not count against the application.
    options = {"spark.deploy.maxExecutorRetries": "-1", **(conf or {})}
    values = environment(
        SPARK_HOME=str(home),
        SPARK_WORKER_DIR=str(folder / "work"),
        SPARK_DAEMON_MEMORY="256m",
        SPARK_DAEMON_JAVA_OPTS=" ".join(f"-D{name}={value}" for name, value in options.items()),
    )
    started: list[subprocess.Popen[bytes]] = []

    def start(kind: str, *arguments: str, prefix: Sequence[str] = (), host: str = "127.0.0.1") -> None:
        command = [*prefix, str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{kind}"]
        with (folder / f"daemon-{len(started)}.log").open("wb") as log:
            started.append(
                subprocess.Popen(
                    tied([*command, "--host", host, "--webui-port", "0", *arguments]),
                    env=values,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    try:
        start("master.Master", "--port", str(port))
        wait_for(lambda: _listens(port), 60, "the master does not listen")
        for worker in workers:
            options_of = ("--cores", str(worker.cores), "--memory", worker.memory)
            start("worker.Worker", *options_of, url, prefix=worker.prefix, host=worker.host)
        yield url
    finally:
        kill_all(executors(url))
        for process in started:
            kill_all([psutil.Process(process.pid)] if process.poll() is None else [])
        for process in started:
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def executors(url: str) -> list[psutil.Process]:
    """Executor JVMs of this machine that a cluster's workers started."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "org.apache.spark.executor.CoarseGrainedExecutorBackend" in line and _is_of(process, url):
            found.append(process)
    return found


def _is_of(process: psutil.Process, url: str) -> bool:
    """Whether the executor's parent is a worker of this master."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(url in parent.cmdline() for parent in process.parents())
    return False


def python_workers(executor: psutil.Process) -> list[psutil.Process]:
    """The Python workers that run an executor's tasks now or wait for more (their daemon is not one)."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [worker for daemon in executor.children() for worker in daemon.children()]
    return []
