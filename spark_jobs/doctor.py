"""Preflight: is everything in place on the driver and on every executor before a long run starts?"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.fs as pafs
from pyspark.sql import SparkSession

from configs.errors import UserError, run_entry
from configs.schema import CocuConfig
from spark_jobs import tables
from spark_jobs.addresses import resolve
from spark_jobs.session import task_slots
from spark_jobs.waves import Unit, map_units

__all__ = ["Finding", "check_host", "main", "run"]

HELP = """\
Check the set-up on the driver and on the executors: Java, Spark, Python and package versions, GPUs,
a writable workspace with working renames, the CLIP model, free disk, Horovod. One line each: ok, or what to
do. Exit code 0: all is well; 1: something is not."""

_PACKAGES = ("pyspark", "pyarrow", "numpy", "torch", "open_clip_torch", "faiss-cpu")
_FREE_GB = 5.0


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's list."""

    what: str
    ok: bool
    text: str


def _attempt(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except UserError as error:
        return Finding(what, False, str(error))
    except Exception as error:  # whatever is wrong with a host is what this command is there to show
        return Finding(what, False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


def check_host(config: CocuConfig, fingerprint: str | None) -> list[Finding]:
    """The checks of one host, run on the driver and in a task of every executor."""
    return [
        _attempt("python", lambda: platform.python_version()),
        _attempt("packages", lambda: ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)),
        _attempt("gpu", _gpus),
        _attempt("workspace", lambda: _workspace(config.workspace)),
        _attempt("clip model", lambda: _model(config, fingerprint)),
        _attempt("free disk", _disk),
    ]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if name == "faiss-cpu":
            return importlib.metadata.version("faiss-gpu")
        raise UserError(
            f"the package {name} is missing; ship the environment (make package, see docs/clusters.md)"
        ) from None


def _gpus() -> str:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return (
        ", ".join(torch.cuda.get_device_name(number) for number in range(count))
        or "none seen; jobs compute on the CPU"
    )


def _workspace(workspace: str) -> str:
    name = f"_doctor-{uuid.uuid4().hex}"
    address = tables.join(workspace, name, "first")
    filesystem, path = resolve(address)
    filesystem.create_dir(path.rpartition("/")[0], recursive=True)
    try:
        with filesystem.open_output_stream(path) as stream:
            stream.write(b"1")
        filesystem.move(path, f"{path}-renamed")
        tables.write_atomically(tables.join(workspace, name, "atomic"), b"1")
        tables.write_atomically(tables.join(workspace, name, "atomic"), b"2")
        with filesystem.open_input_stream(f"{path.rpartition('/')[0]}/atomic") as stream:
            if stream.read() != b"2":
                raise UserError(f"{workspace}: a file that was just replaced reads as the old one")
    finally:
        filesystem.delete_dir(path.rpartition("/")[0])
    kind = "local disk" if isinstance(filesystem, pafs.LocalFileSystem) else filesystem.type_name
    return f"{workspace} is writable and renames work ({kind})"


def _model(config: CocuConfig, fingerprint: str | None) -> str:
    from models.clip import clip_fingerprint, load_clip

    clip = load_clip(config.clip)
    here = clip_fingerprint(config.clip)
    if fingerprint is not None and here != fingerprint:
        raise UserError(
            f"clip.pretrained={config.clip.pretrained} is another file than the driver's ({here}, {fingerprint})"
        )
    return f"{config.clip.name} ({here}), {clip.dimension} dimensions, on {clip.device.type}"


def _disk() -> str:
    import tempfile

    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free / 1e9
    if free < _FREE_GB:
        raise UserError(
            f"{free:.1f} GB free in {folder}; Spark and the index need at least {_FREE_GB:.0f}: set spark.local.dir"
        )
    return f"{free:.0f} GB free in {folder}"


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    program = os.path.join(home, "bin", "java") if home else "java"
    done = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
    return (done.stderr or done.stdout).splitlines()[0]


def _horovod() -> str:
    try:
        import horovod.torch as hvd
    except ImportError:
        raise UserError("not installed; training then runs in one process (make setup builds it)") from None
    built = [
        name
        for name, has in (("gloo", hvd.gloo_built()), ("nccl", hvd.nccl_built()), ("mpi", hvd.mpi_built()))
        if has
    ]
    return f"{_version('horovod')} with {', '.join(built)}"


def run(session: SparkSession, config: CocuConfig) -> bool:
    """Print the findings; true if all are well."""
    from models.clip import clip_fingerprint

    sections: dict[str, list[Finding]] = {}
    fingerprint = clip_fingerprint(config.clip)
    driver = [
        _attempt("java", _java),
        Finding("spark", True, f"{session.version} at {session.sparkContext.master}"),
    ]
    sections["driver"] = [*driver, *check_host(config, fingerprint), _attempt("horovod", _horovod)]
    versions = next(finding.text for finding in sections["driver"] if finding.what == "packages")

    def look(_unit: Unit) -> str:
        findings = check_host(config, fingerprint)
        return json.dumps(
            {"host": f"{socket.gethostname()}", "findings": [asdict(item) for item in findings]}
        )

    # More tasks than slots, so that every executor gets some.
    units = [Unit(str(number), 0) for number in range(2 * task_slots(session))]
    seen: dict[str, dict[str, Any]] = {}
    for line in map_units(session, units, look):
        entry = json.loads(line)
        seen.setdefault(entry["host"], entry)
    for host, entry in sorted(seen.items()):
        findings = [Finding(**item) for item in entry["findings"]]
        other = next(finding.text for finding in findings if finding.what == "packages")
        if other != versions:
            text = f"other versions than on the driver ({other}); ship the driver's environment by --archives"
            findings.append(Finding("same packages", False, text))
        sections[f"executors on {host}"] = findings
    for title, findings in sections.items():
        print(title)
        for finding in findings:
            print(f"  {'ok  ' if finding.ok else 'FAIL'}  {finding.what:<12} {finding.text}")
    well = all(finding.ok for findings in sections.values() for finding in findings)
    print("all is well" if well else "something is not; mend the lines with FAIL")
    return well


def main() -> None:
    """Entry of spark-submit and of python -m."""
    from spark_jobs.entry import check_workspace, parse_arguments
    from spark_jobs.session import open_session

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
