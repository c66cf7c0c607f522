"""The Spark session of all jobs, and what its tasks may use."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

from pyspark import SparkContext
from pyspark.resource import ResourceProfile, ResourceProfileBuilder, TaskResourceRequests
from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.schema import CocuConfig

__all__ = ["chosen_master", "gpu_profile", "open_session", "task_slots"]

# Python workers each do one thing at a time; the parallelism is in the number of tasks. Math libraries
# that start one thread a core in every worker would fight each other for the cores.
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def open_session(config: CocuConfig) -> SparkSession:
    """The running session, or a new one; properties given to spark-submit win over the configuration's.

    Raises:
        UserError: Java is missing, the master cannot be reached, or spark-submit must be told it.
    """
    if SparkContext._active_spark_context is None and not _find_java():
        raise UserError(
            "Java is missing: install a JDK 17 (Debian: apt install openjdk-17-jre-headless) or set JAVA_HOME"
        )
    # Executors on other machines bring their own Python by --archives; here it is the running one.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    for name in _ONE_THREAD:
        os.environ.setdefault(name, "1")
    builder = SparkSession.builder.appName(config.spark.app_name)
    defaults = {
        "spark.sql.execution.arrow.maxBytesPerBatch": str(8 << 20),
        "spark.ui.showConsoleProgress": "false",
        "spark.python.worker.reuse": "true",
        # The driver process is already running when this is read from inside a script, so the heap
        # matters only for `python -m spark_jobs...`.
        "spark.driver.memory": config.spark.driver_memory,
        **{f"spark.executorEnv.{name}": "1" for name in _ONE_THREAD},
        **config.spark.conf,
    }
    given = _properties_of_spark_submit()
    for key, value in defaults.items():
        if key not in given:
            builder = builder.config(key, value)
    if master := chosen_master(config.spark.master, given.get("spark.master")):
        builder = builder.master(master)
    try:
        session = builder.getOrCreate()
    except Exception as error:
        raise UserError(f"Spark does not start: {str(error).strip().splitlines()[0]}") from error
    session.sparkContext.setLogLevel("ERROR" if session.sparkContext.master.startswith("local") else "WARN")
    return session


def chosen_master(wanted: str, given: str | None) -> str | None:
    """The master to set for this session, or None where spark-submit's own stays.

    Args:
        wanted: ``spark.master`` of the configuration, or empty.
        given: what spark-submit says, None without it. It says ``local[*]`` when nobody told it, too.

    Raises:
        UserError: a master for which spark-submit prepares things before the driver starts.
    """
    if given is None:
        return wanted or "local[*]"
    if not wanted or wanted == given:
        return None
    if given != "local[*]":
        print(
            f"spark.master={wanted} is not used: spark-submit was given {given}", file=sys.stderr, flush=True
        )
        return None
    if wanted.startswith(("local", "spark://")):
        return wanted
    raise UserError(
        f"spark.master={wanted}: give it to spark-submit itself (--master {wanted}; scripts/submit.sh does), which "
        "otherwise runs everything on this machine"
    )


def _find_java() -> bool:
    home = os.environ.get("JAVA_HOME")
    return bool(shutil.which("java") or (home and shutil.which("java", path=os.path.join(home, "bin"))))


def _properties_of_spark_submit() -> dict[str, str]:
    """Properties that spark-submit handed to this process (empty when started by plain Python)."""
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        return {}
    from pyspark.conf import SparkConf

    SparkContext._ensure_initialized()
    return dict(SparkConf().getAll())


def task_slots(session: SparkSession) -> int:
    """Tasks that can run at once, as far as Spark knows now."""
    return max(1, session.sparkContext.defaultParallelism)


def gpu_profile(session: SparkSession) -> ResourceProfile | None:
    """A resource profile that gives each task of a stage one GPU, or None where executors have none.

    Stage-level scheduling: only the stages run with it hold GPUs. Local mode has no such profiles; there
    a task asks CUDA directly (:func:`models.clip.pick_device`).
    """
    conf: Any = session.sparkContext.getConf()
    if float(conf.get("spark.executor.resource.gpu.amount", "0")) <= 0:
        return None
    if (
        session.sparkContext.master.startswith("local")
        or float(conf.get("spark.task.resource.gpu.amount", "0")) > 0
    ):
        return None  # the session's default profile hands GPUs to tasks already
    cpus = int(conf.get("spark.task.cpus", "1"))
    requests = TaskResourceRequests().cpus(cpus).resource("gpu", 1)
    return ResourceProfileBuilder().require(requests).build
