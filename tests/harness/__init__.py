"""What the fault tests share: a small corpus, a standalone cluster of real processes, comparisons."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import models  # noqa: F401  (before open_clip)
from storage import tables

ROOT = Path(__file__).parents[2]
Value = TypeVar("Value")
WORDS = (
    "dog cat tree car boat house river bird horse flower bridge mountain train bicycle clock chair".split()
)


def write_shards(folder: Path, shards: int, samples: int, seed: int = 0) -> int:
    """img2dataset-like tars of small pictures; returns how many samples there are."""
    folder.mkdir(parents=True, exist_ok=True)
    source = random.Random(seed)
    colours = np.random.default_rng(seed)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for sample in range(samples):
                key = f"{shard:05d}{sample:04d}"
                coarse = colours.integers(0, 255, (4, 4, 3), dtype=np.uint8)
                image = Image.fromarray(coarse).resize((72, 64), Image.Resampling.BILINEAR)
                buffer = io.BytesIO()
                image.save(buffer, "JPEG")
                caption = f"a {source.choice(WORDS)} near a {source.choice(WORDS)}"
                for suffix, data in (("jpg", buffer.getvalue()), ("txt", caption.encode()), ("json", b"{}")):
                    info = tarfile.TarInfo(f"{key}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return shards * samples


def write_tiny_clip(folder: Path, slow_layers: int = 1, width: int = 64) -> tuple[str, str]:
    """An open_clip model without training, as a config and a checkpoint; more layers make it slower."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = folder / f"tiny-{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}.json"
    config.write_text(
        json.dumps(
            {
                "embed_dim": 32,
                "vision_cfg": {
                    "image_size": 64,
                    "layers": slow_layers,
                    "width": width,
                    "patch_size": 16,
                    "head_width": 32,
                },
                "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
            }
        )
    )
    open_clip.add_model_config(config)
    torch.manual_seed(0)
    model = open_clip.create_model(config.stem)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "tiny.safetensors",
    )
    return str(config), str(folder / "tiny.safetensors")


def write_config(
    folder: Path, shards: Path, clip: tuple[str, str], rows_per_part: int = 20, **sections: dict
) -> Path:
    """A configuration file for such a corpus."""
    values = {
        "corpora": [{"name": "web", "format": "webdataset", "path": f"{shards}/*.tar"}],
        "ingest": {"rows_per_part": rows_per_part},
        "clip": {"name": clip[0], "pretrained": clip[1]},
        "concepts": {"min_count": 2},
        "index": {"kind": "flat"},
        "archives": {"top": 8},
        "export": {"archive_length": 8, "row_group_rows": 16},
        "report": {"samples": 4},
        **sections,
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    return path


def environment(**changes: str) -> dict[str, str]:
    """The environment of jobs started by the tests."""
    values = dict(os.environ)
    for name in ("PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET", "SPARK_ENV_LOADED"):
        values.pop(name, None)
    values.update(PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1", OMP_NUM_THREADS="1", **changes)
    return values


def submit(
    job: str,
    config: Path,
    workspace: Path,
    *overrides: str,
    master: str = "local[2]",
    options: Sequence[str] = (),
    cwd: Path = ROOT,
) -> list[str]:
    """The command line of a job."""
    program = str(Path(sys.executable).parent / "spark-submit")
    common = ["--driver-memory", "1g", "--conf", "spark.ui.enabled=false"]
    script = str(ROOT / "spark_jobs" / f"{job}.py")
    return [
        program,
        "--master",
        master,
        *common,
        *options,
        script,
        "--config",
        str(config),
        f"workspace={workspace}",
        *overrides,
    ]


def run(
    command: Sequence[str], timeout: float = 300, check: bool = True, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run a job to its end."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment(**changes), cwd=ROOT
    )
    if check and done.returncode:
        raise AssertionError(f"exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    return done


def table_rows(workspace: Path, table: str, columns: list[str] | None = None) -> pa.Table:
    """All rows of a complete table in its order."""
    manifest = tables.read_manifest(str(workspace), table)
    return pa.concat_tables(
        [pq.read_table(file, columns=columns, partitioning=None) for file in manifest.files]
    )


def assert_same_tables(one: Path, other: Path, names: Sequence[str]) -> None:
    """Row for row, value for value."""
    for name in names:
        left, right = table_rows(one, name), table_rows(other, name)
        assert left.schema.equals(right.schema), name
        assert left.num_rows == right.num_rows, f"{name}: {left.num_rows} and {right.num_rows} rows"
        assert left.equals(right), f"{name} differs"


def duplicates(rows: pa.Table) -> int:
    """Rows whose key was there before."""
    return rows.num_rows - len(set(rows.column("key").to_pylist()))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def tied(command: Sequence[str]) -> list[str]:
    """The command, so that it dies with this process however this process dies (where setpriv is there)."""
    program = shutil.which("setpriv")
    return [program, "--pdeathsig", "KILL", *command] if program else list(command)


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


def wait_for(condition: Callable[[], Value], seconds: float, message: str) -> Value:
    """Poll until a condition holds; its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(message)


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


def kill_all(processes: Sequence[psutil.Process]) -> None:
    """kill -9, children first."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()


def kill_tree(pid: int) -> None:
    """kill -9 of a driver with everything it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        kill_all([psutil.Process(pid)])


def progress_of(workspace: Path, table: str) -> dict:
    """The progress file of a table that is being built, or nothing."""
    for path in (workspace / table).glob("_progress-*.json"):
        with contextlib.suppress(OSError):
            return json.loads(path.read_text())  # half of one would be a fault: no error is hidden here
    return {"units": []}


def committed_units(workspace: Path, table: str) -> int:
    """Units in the progress file of a table that is being built."""
    return len(progress_of(workspace, table)["units"])
