"""Executors that are not as the driver: without the model's file, with another package, with other code.

All executors of this machine share its disk, so a worker is started in a mount namespace of its own, where
another file or folder lies over the real one.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests import harness
from tests.faults.calm import Corpus, Outcome, workspace_with
from tests.harness import Worker

_COVER = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'


def covered(real: Path, other: Path) -> list[str]:
    """A command that runs the rest of its line with ``other`` in the place of ``real``."""
    return ["unshare", "--mount", "sh", "-c", _COVER, "sh", str(other), str(real)]


def _other_numpy(folder: Path) -> list[str]:
    """The folder that tells numpy's version, of another version."""
    real = Path(str(importlib.metadata.distribution("numpy").locate_file(""))) / (
        f"numpy-{importlib.metadata.version('numpy')}.dist-info"
    )
    other = folder / "numpy.dist-info"
    shutil.copytree(real, other)
    text = (other / "METADATA").read_text()
    version = importlib.metadata.version("numpy")
    (other / "METADATA").write_text(text.replace(f"Version: {version}", "Version: 1.26.1", 1))
    return covered(real, other)


def executor_differs(corpus: Corpus, scratch: Path) -> Outcome:
    """One executor lacks the model, one has another numpy: the doctor names both, jobs refuse at once."""
    folder = scratch / "mismatch"
    (folder / "no-model").mkdir(parents=True)
    workers = [
        Worker(),
        Worker(prefix=covered(corpus.folder / "clip", folder / "no-model")),
        Worker(memory="600m", prefix=_other_numpy(folder)),
    ]
    wrong = []
    with harness.standalone_cluster(folder / "cluster", workers) as url:
        said = _submit("doctor", corpus, corpus.calm, url, 3, "500m")
        wrong += _doctors_faults(said)
        # Executors of 800 MB: the worker with the other numpy has no room for one.
        workspace = workspace_with(corpus.calm, folder / "embed", ("pairs",))
        said = _submit("embed_images", corpus, workspace, url, 2, "800m")
        line = _error_line(said)
        if said.returncode != 2 or "executor on" not in line or "lacks clip." not in line:
            wrong.append(f"embed_images: exit code {said.returncode}: {line or said.stderr[-300:]}")
    return Outcome(
        "executor without model / other version", 2, 2, 2 - len(wrong), 0, "; ".join(wrong) or "ok"
    )


def _submit(
    job: str, corpus: Corpus, workspace: Path, url: str, executors: int, memory: str
) -> subprocess.CompletedProcess[str]:
    conf = {
        "spark.executor.memory": memory,
        "spark.executor.cores": "1",
        "spark.cores.max": str(executors),
        # All executors are there before the first task is given out.
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        "spark.scheduler.maxRegisteredResourcesWaitingTime": "120s",
    }
    options = [item for name, value in conf.items() for item in ("--conf", f"{name}={value}")]
    return harness.run(
        harness.submit(job, corpus.config, workspace, master=url, options=options), check=False
    )


def _error_line(done: subprocess.CompletedProcess[str]) -> str:
    # spark-submit hands on what its Python writes to stderr as its own stdout.
    lines = (done.stdout + done.stderr).splitlines()
    return next((line for line in lines if line.startswith("error:")), "")


def _doctors_faults(done: subprocess.CompletedProcess[str]) -> Sequence[str]:
    failed = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith("FAIL")]
    wrong = []
    if done.returncode != 1 or len(failed) != 2:
        wrong.append(f"doctor: exit code {done.returncode}, {failed}: {done.stderr[-300:]}")
    if not any("numpy 1.26.1 (driver: 1.26.4)" in line for line in failed):
        wrong.append("doctor: the other numpy was not told")
    if not any("clip model" in line and "is not on" in line for line in failed):
        wrong.append("doctor: the missing model was not told")
    if done.stdout.count("executor ") < 3:
        wrong.append("doctor: not every executor was asked")
    return wrong[:1]
