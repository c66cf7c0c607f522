"""Preflight: is everything in place on the driver and on every executor before a long run starts?"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from pyspark.sql import SparkSession

from configs.errors import UserError, run_entry
from configs.schema import CocuConfig
from spark_jobs.engine.session import task_slots
from spark_jobs.engine.task_errors import translated
from spark_jobs.engine.versions import PACKAGES, differences, package_version, versions
from storage import tables
from storage.addresses import resolve
from storage.credentials import without_credentials
from storage.small_files import write_atomically

__all__ = ["Finding", "Host", "check_host", "main", "one_precision", "run"]

HELP = """\
Check the set-up on the driver and on every executor: Java, Spark, Python, packages and code, GPUs, a
writable workspace that all hosts share and whose renames are atomic, the CLIP model and that all executors
compute it in one precision, free disk, and what Horovod was built with. One line each: ok, or what to do.
Exit code 0: all is well; 1: something is not."""

_FREE_GB = 5.0
_OLDEST_JAVA = 17
_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's list."""

    what: str
    ok: bool
    text: str


@dataclass(frozen=True)
class Asked:
    """What the driver tells an executor, so that it can compare."""

    config: CocuConfig
    fingerprint: str
    versions: dict[str, str]
    marker: str
    gpus_promised: bool


@dataclass(frozen=True)
class Host:
    """The findings of one driver or executor.

    ``process`` tells executors of one machine apart; ``precision`` is what the CLIP model is computed in there, "" where
    it does not load.
    """

    name: str
    process: int
    findings: tuple[Finding, ...]
    precision: str = ""

    @property
    def well(self) -> bool:
        """Whether every line is ok."""
        return all(finding.ok for finding in self.findings)


def _attempt(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except UserError as error:
        return Finding(what, False, str(error))
    except Exception as error:  # whatever is wrong with a host is what this command is there to show
        return Finding(what, False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


def check_host(asked: Asked) -> list[Finding]:
    """The checks of one host, made on the driver and in a task of every executor."""
    return [
        _attempt("java", _java),
        _attempt("versions", lambda: _versions(asked.versions)),
        _attempt("gpu", lambda: _gpus(asked.gpus_promised)),
        _attempt("workspace", lambda: _workspace(asked.config.workspace, asked.marker)),
        _attempt("clip model", lambda: _model(asked.config, asked.fingerprint)),
        _attempt("free disk", _disk),
    ]


def _java() -> str:
    program = _java_of_executor() or _java_of_driver()
    done = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
    first = (done.stderr or done.stdout).splitlines()[0]
    number = first.partition('"')[2].partition(".")[0].strip('"')
    if number.isdigit() and int(number) < _OLDEST_JAVA:
        raise UserError(f"{first} in {program}; Spark 4 needs Java 17 or 21: set JAVA_HOME to one")
    return first


def _java_of_driver() -> str:
    home = os.environ.get("JAVA_HOME")
    return os.path.join(home, "bin", "java") if home else "java"


def _java_of_executor() -> str | None:
    """The program of the JVM above this process (worker, daemon, executor), where /proc tells."""
    process = os.getpid()
    for _ in range(4):
        with contextlib.suppress(OSError, ValueError):
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
            program = Path(f"/proc/{process}/exe").readlink()
            if program.name == "java":
                return str(program)
    return None


def _versions(driver: dict[str, str]) -> str:
    here = versions()
    missing = [name for name in PACKAGES if here[name] == "missing"]
    if missing:
        raise UserError(
            f"missing: {', '.join(missing)}; ship the environment (make package, see docs/clusters.md)"
        )
    other = differences(driver, here)
    if other:
        raise UserError(
            f"{', '.join(other)}; ship the driver's environment by --archives and its code by --py-files"
        )
    return ", ".join(f"{name} {version}" for name, version in here.items())


def _gpus(promised: bool) -> str:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if promised and not count:
        raise UserError(
            f"Spark hands out GPUs and torch {torch.__version__} sees none; install its CUDA build and check the "
            "driver with nvidia-smi"
        )
    return (
        ", ".join(torch.cuda.get_device_name(number) for number in range(count))
        or "none seen; jobs compute on the CPU"
    )


def _workspace(workspace: str, marker: str) -> str:
    """Write, replace and read back, in a folder of its own."""
    filesystem, seen = resolve(marker)
    folder = tables.join(workspace, f"_doctor-{uuid.uuid4().hex}")
    path = resolve(folder)[1]
    rows = pa.table({"key": ["a", "b"]})
    try:
        # The two ways in which jobs write: a part file, a small file replaced.
        tables.write_part(folder, "_parts/part.parquet", rows, rows.schema)
        if tables.read_file(tables.join(folder, "_parts/part.parquet")).num_rows != 2:
            raise UserError(f"{workspace}: a file that was just written reads as another one")
        for value in (b"1", b"2"):
            write_atomically(tables.join(folder, "atomic"), value)
        with filesystem.open_input_stream(f"{path}/atomic") as stream:
            if stream.read() != b"2":
                raise UserError(f"{workspace}: a file that was just replaced reads as the old one")
    except (OSError, pa.ArrowException) as error:
        mend = without_credentials(workspace) or "; choose a writable workspace="
        raise UserError(f"{workspace}: {' '.join(str(error).split())[:200]}{mend}") from None
    finally:
        with contextlib.suppress(OSError):
            filesystem.delete_dir(path)
    if filesystem.get_file_info(seen).type != pafs.FileType.File:
        raise UserError(
            f"{workspace}: what the driver wrote is not there; all hosts must share the workspace (hdfs://, "
            f"s3a:// or a network disk)"
        )
    kind = "local disk" if isinstance(filesystem, pafs.LocalFileSystem) else filesystem.type_name
    return f"{workspace} is writable and shared ({kind})"


def _model(config: CocuConfig, fingerprint: str) -> str:
    from models.clip import clip_fingerprint, load_clip

    for value in (config.clip.name, config.clip.pretrained):
        if "/" in value and not Path(value).is_file():
            raise UserError(f"{value} is not on {socket.gethostname()}; put it there or on a shared path")
    here = clip_fingerprint(config.clip)
    if here != fingerprint:
        raise UserError(
            f"clip.pretrained={config.clip.pretrained} is another file than the driver's ({here}, {fingerprint})"
        )
    clip = load_clip(config.clip)
    where = f"on {clip.device.type} in {clip.precision}"
    return f"{Path(config.clip.name).name} ({here}), {clip.dimension} dimensions, {where}"


def _precision(config: CocuConfig, findings: Sequence[Finding]) -> str:
    """What the model is computed in here; where it does not load, a line of the findings says why."""
    from models.clip import load_clip

    loads = all(finding.ok for finding in findings if finding.what == "clip model")
    return load_clip(config.clip).precision if loads else ""


def one_precision(hosts: Sequence[Host]) -> str:
    """What all executors compute in, for a table holds one precision (``embed_images`` would find out after a wave).

    Raises:
        UserError: they differ, as where some have GPUs or AMX and others do not.
    """
    found: dict[str, str] = {}
    for host in hosts:
        if host.precision:
            found.setdefault(host.precision, host.name)
    if len(found) > 1:
        what = " and ".join(f"{precision} ({name})" for precision, name in found.items())
        choice = " or ".join(f"clip.precision={precision}" for precision in found)
        raise UserError(
            f"clip.precision=auto comes to {what}, and a table holds one precision; write {choice}"
        )
    return ", ".join(found) or "not known"


def _disk() -> str:
    found = []
    for what, folder in (("temporary files", tempfile.gettempdir()), ("this process", str(Path.cwd()))):
        free = shutil.disk_usage(folder).free / 1e9
        if free < _FREE_GB:
            raise UserError(
                f"{free:.1f} GB free for {what}; Spark and the index need at least {_FREE_GB:.0f}: free some, "
                f"or set spark.local.dir, TMPDIR and COCU_CACHE to another disk"
            )
        found.append(f"{free:.0f} GB for {what}")
    return ", ".join(found)


def _horovod() -> str:
    try:
        import horovod.torch as hvd
    except ImportError:
        return "not installed: training runs in one process (make setup builds it)"
    import torch

    built = [
        name
        for name, has in (("gloo", hvd.gloo_built()), ("nccl", hvd.nccl_built()), ("mpi", hvd.mpi_built()))
        if has
    ]
    if not built:
        raise UserError("built without gloo, nccl and mpi; delete its cached wheel and run make setup again")
    if torch.cuda.is_available():
        _insist_on_gpu_operations(built)
    return f"{package_version('horovod')} with {', '.join(built)}"


def _insist_on_gpu_operations(built: list[str]) -> None:
    """What a machine with a GPU wants of Horovod: without, each gradient goes through the host's memory."""
    if "nccl" not in built:
        raise UserError(
            f"built with {', '.join(built)} and without GPU operations: the GPUs' gradients go through the host's "
            "memory, which is slow; run make setup with nvcc and HOROVOD_NCCL_HOME=FOLDER (of nccl.h and libnccl)"
        )


def _executors(session: SparkSession) -> int:
    """How many executors there are, once as many as were asked for have come (or a minute is over)."""
    context = session.sparkContext
    if context.master.startswith("local"):
        return 1
    conf: Any = context.getConf()
    cores = int(conf.get("spark.executor.cores", "0") or 0)
    wanted = int(conf.get("spark.executor.instances", "0") or 0)
    if not wanted and cores and conf.get("spark.cores.max"):
        wanted = int(conf.get("spark.cores.max")) // cores
    end, count, steady = time.monotonic() + _WAIT_SECONDS, 0, time.monotonic()
    while time.monotonic() < end:
        # The driver is among them.
        now = len(context._jsc.sc().statusTracker().getExecutorInfos()) - 1  # type: ignore[union-attr]
        if now != count:
            count, steady = now, time.monotonic()
        if count and (count >= wanted if wanted else time.monotonic() - steady > 5):
            break
        time.sleep(0.5)
    return count


def _look(asked: Asked) -> Iterator[str]:
    findings = tuple(check_host(asked))
    # The worker's parent is the executor's own Python daemon: one an executor.
    host = Host(_executor_name(), os.getppid(), findings, _precision(asked.config, findings))
    yield json.dumps(asdict(host))


def _executor_name() -> str:
    number = os.environ.get("SPARK_EXECUTOR_ID") or Path.cwd().name
    return (
        f"executor {number} on {socket.gethostname()}"
        if number.isdigit()
        else f"executor on {socket.gethostname()}"
    )


def _ask_executors(session: SparkSession, asked: Asked, executors: int) -> list[Host]:
    """Tasks until every executor has answered: Spark does not let one choose where a task runs."""
    seen: dict[tuple[str, int], Host] = {}
    for _ in range(5):
        tasks = 2 * task_slots(session)
        try:
            lines = (
                session.sparkContext.parallelize(range(tasks), tasks)
                .flatMap(lambda _: _look(asked))
                .collect()
            )
        except Exception as error:
            told = translated(error)
            text = str(told) if isinstance(told, UserError) else " ".join(str(error).split())[-400:]
            return [Host("some executor", 0, (Finding("tasks", False, text),))]
        for entry in map(json.loads, lines):
            host = Host(**{**entry, "findings": tuple(Finding(**item) for item in entry["findings"])})
            seen.setdefault((host.name, host.process), host)
        if len(seen) >= executors:
            break
    hosts = sorted(seen.values(), key=lambda host: (host.name, host.process))
    if len(hosts) < executors:
        text = f"{len(hosts)} of {executors} executors answered; the others were busy or are just starting: ask again"
        hosts.append(Host("the cluster", 0, (Finding("executors", False, text),)))
    if len(hosts) > 1:
        hosts.append(Host("together", 0, (_attempt("precision", lambda: one_precision(hosts)),)))
    return hosts


def run(session: SparkSession, config: CocuConfig) -> bool:
    """Print the findings; true if all are well."""
    from models.clip import clip_fingerprint

    marker = tables.join(config.workspace, f"_doctor-{uuid.uuid4().hex}.json")
    conf: Any = session.sparkContext.getConf()
    promised = float(conf.get("spark.executor.resource.gpu.amount", "0")) > 0
    with contextlib.suppress(OSError):  # the line on the workspace will say it
        write_atomically(marker, b"{}")
    asked = Asked(config, clip_fingerprint(config.clip), versions(), marker, promised)
    try:
        driver = [
            Finding("spark", True, f"{session.version} at {session.sparkContext.master}"),
            *check_host(Asked(config, asked.fingerprint, asked.versions, marker, False)),
            _attempt("horovod", _horovod),
        ]
        hosts = _ask_executors(session, asked, _executors(session))
    finally:
        filesystem, path = resolve(marker)
        with contextlib.suppress(OSError):
            filesystem.delete_file(path)
    return _print([Host(f"driver on {socket.gethostname()}", os.getpid(), tuple(driver)), *hosts])


def _print(hosts: list[Host]) -> bool:
    for host in hosts:
        print(host.name)
        for finding in host.findings:
            print(f"  {'ok  ' if finding.ok else 'FAIL'}  {finding.what:<10}  {finding.text}")
    well = all(host.well for host in hosts)
    print("all is well" if well else "something is not; mend the lines with FAIL", flush=True)
    return well


def main() -> None:
    """Entry of spark-submit and of python -m."""
    from spark_jobs.engine.entry import check_workspace, parse_arguments
    from spark_jobs.engine.session import open_session

    def work(argv: list[str]) -> int:
        config = parse_arguments(argv, "doctor", HELP, ["clip"])
        check_workspace(config)
        session = open_session(config)
        try:
            return 0 if run(session, config) else 1
        finally:
            session.stop()

    run_entry(work, sys.argv[1:])


if __name__ == "__main__":
    from spark_jobs.doctor import (
        main as entry,  # by its import name, so that executors find the task's function
    )

    entry()
