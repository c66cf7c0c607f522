"""A real standalone cluster, the packed environment, and a submit from elsewhere: `make cluster-test`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from storage import tables
from tests import harness
from tests.faults import calm

CONFIGS = harness.ROOT / "cluster_configs"
DEFAULTS = sorted(CONFIGS.glob("*/*/spark-defaults.conf"))


def _properties(path: Path) -> dict[str, str]:
    lines = [line.split(None, 1) for line in path.read_text().splitlines() if line and line[0] != "#"]
    assert all(len(words) == 2 for words in lines), path
    return {name: value.strip() for name, value in lines}


def _environment(**changes: str) -> dict[str, str]:
    """Without what would let executors find the project or the developer's environment by chance."""
    values = harness.environment(**changes)
    for name in ("PYTHONPATH", "PYSPARK_PYTHON", "SPARK_CONF_DIR", "VIRTUAL_ENV"):
        values.pop(name, None)
    return values


@pytest.fixture(scope="module")
def package():
    """dist/environment.tar.gz and dist/cocu.zip."""
    done = subprocess.run(
        [harness.ROOT / "scripts" / "package.sh"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "VENV": sys.prefix},
    )
    assert done.returncode == 0, done.stderr
    return harness.ROOT / "dist"


@pytest.fixture(scope="module")
def submitted(package, tmp_path_factory):
    """The pipeline over a small corpus, submitted from another folder to a master with two workers."""
    folder = tmp_path_factory.mktemp("cluster")
    away = folder / "elsewhere"
    away.mkdir()
    clip = harness.write_tiny_clip(folder / "clip")
    harness.write_shards(folder / "shards", 4, 30)
    config = harness.write_config(folder, folder / "shards", clip)
    workers = [harness.Worker(memory="1g"), harness.Worker(memory="1g")]
    with harness.standalone_cluster(folder / "daemons", workers) as url:
        command = [
            harness.ROOT / "scripts" / "submit.sh", "standalone", "cpu", "pipeline",
            "--conf", "spark.executor.memory=512m", "--conf", "spark.executor.cores=1",
            "--conf", "spark.driver.memory=1g", "--conf", "spark.ui.enabled=false",
            "--conf", f"spark.hadoop.fs.s3a.secret.key={calm.SECRETS['spark-submit']}",
            "--", "--config", str(config), f"workspace={folder / 'workspace'}",
        ]  # fmt: skip
        bin_folder = Path(sys.prefix) / "bin"
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=600,
            cwd=away,
            check=False,
            env=_environment(
                MASTER=url,
                AWS_SECRET_ACCESS_KEY=calm.SECRETS["environment"],
                SPARK_SUBMIT=str(bin_folder / "spark-submit"),
                DRIVER_PYTHON=str(bin_folder / "python"),
            ),
        )
        used = sorted(path for path in (folder / "daemons" / "work").glob("app-*/*/environment/bin/python"))
    return folder, done, used


@pytest.mark.slow
def test_the_packed_pipeline_runs_on_executors_of_its_own(submitted):
    folder, done, used = submitted
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    summary = json.loads((folder / "workspace" / "summary.json").read_text())
    assert summary["pairs_in"] == summary["pairs_out"] == 4 * 30
    assert summary["concepts"] > 0
    assert len(used) == 2, "two executors unpacked an environment each"
    for table in ("pairs", "image_embeddings", "pair_concepts", "archives", "training_set"):
        rows = harness.table_rows(folder / "workspace", table, ["key"])
        assert (rows.num_rows, harness.duplicates(rows)) == (120, 0), table


@pytest.mark.slow
def test_the_cluster_computes_what_one_machine_computes(submitted, spark):
    folder, done, _ = submitted
    assert done.returncode == 0
    config = folder / "config.yaml"
    for job in ("ingest", "embed_images", "mine_concepts", "fit_probe", "build_index", "build_archives"):
        assert calm.run_here(spark, job, config, folder / "alone") == ""
    harness.assert_same_tables(folder / "alone", folder / "workspace", calm.CURATED)


@pytest.mark.slow
def test_credentials_reach_no_output_of_a_cluster(submitted):
    folder, done, _ = submitted
    for secret in calm.SECRETS.values():
        assert secret not in done.stderr
        # The command is shown as the caller typed it, who here typed the secret.
        assert secret not in done.stdout.partition("\n")[2]
        for file in [*(folder / "workspace").rglob("*"), *(folder / "daemons").glob("work/app-*/*/std*")]:
            if file.is_file():
                assert secret.encode() not in file.read_bytes(), file


@pytest.mark.slow
def test_the_package_holds_no_path_into_this_folder(package):
    done = subprocess.run(
        ["tar", "tzf", package / "environment.tar.gz"], capture_output=True, text=True, check=True
    )
    names = done.stdout.splitlines()
    assert any(name.endswith("bin/python") for name in names)
    assert not any("__editable__" in name or "/pyspark/jars/" in name for name in names)
    assert (package / "environment.tar.gz").stat().st_size < 600e6


@pytest.mark.parametrize("path", DEFAULTS, ids=lambda path: "-".join(path.parts[-3:-1]))
def test_every_property_is_one_that_spark_knows(path, known_properties):
    unknown = [
        name
        for name in _properties(path)
        if name not in known_properties
        and not name.startswith(("spark.executorEnv.", "spark.hadoop."))
        and not _is_pattern(name)
    ]
    assert unknown == []


def _is_pattern(name: str) -> bool:
    """Properties with a name of the user's inside."""
    return name.startswith(
        (
            "spark.kubernetes.driver.secretKeyRef.",
            "spark.kubernetes.executor.secretKeyRef.",
            "spark.executor.resource.gpu.",
        )
    )


@pytest.fixture(scope="module")
def known_properties(spark):
    """The names that this Spark registers, Kubernetes' and YARN's among them (the jars are there)."""
    jvm = spark.sparkContext._jvm
    for module in (
        "org.apache.spark.internal.config.package",
        "org.apache.spark.sql.internal.SQLConf",
        "org.apache.spark.deploy.k8s.Config",
        "org.apache.spark.deploy.yarn.config.package",
        "org.apache.spark.internal.config.Python",
        "org.apache.spark.internal.config.UI",
    ):
        # Loading the class registers its entries.
        jvm.java.lang.Class.forName(f"{module}$")
    holder = jvm.java.lang.Class.forName("org.apache.spark.internal.config.ConfigEntry$")
    registered = holder.getDeclaredField("knownConfigs")
    registered.setAccessible(True)
    names = set(registered.get(holder.getField("MODULE$").get(None)))
    assert len(names) > 1000
    # Read by name only.
    return names | {"spark.master", "spark.submit.deployMode"}


def test_gpu_executors_leave_gpus_to_the_stages_that_ask():
    for path in CONFIGS.glob("*/gpu/spark-defaults.conf"):
        properties = _properties(path)
        assert "spark.task.resource.gpu.amount" not in properties
        if path.parts[-3] != "local":
            assert properties["spark.executor.resource.gpu.amount"] == "1"
            assert properties["spark.dynamicAllocation.enabled"] == "false"


def test_memory_is_explicit_everywhere():
    for path in DEFAULTS:
        if path.parts[-3] != "local":
            assert {"spark.executor.memory", "spark.executor.memoryOverhead"} <= _properties(path).keys()


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.name)
def test_manifests_are_yaml_of_the_right_kind(path):
    documents = list(yaml.safe_load_all(path.read_text()))
    assert all({"apiVersion", "kind"} <= document.keys() for document in documents)
    if path.name == "mpijob.yaml":
        replicas = documents[0]["spec"]["mpiReplicaSpecs"]
        command = replicas["Launcher"]["template"]["spec"]["containers"][0]["command"]
        processes = int(command[command.index("-np") + 1])
        assert processes == replicas["Worker"]["replicas"] * documents[0]["spec"]["slotsPerWorker"]
        assert documents[0]["apiVersion"] == "kubeflow.org/v2beta1"


def _discover(folder: Path, smi: str | None, **changes: str) -> dict:
    tools = folder / "tools"
    tools.mkdir()
    for name in ("tr", "grep", "seq", "sed", "paste", "cat", "bash"):
        (tools / name).symlink_to(shutil.which(name))
    if smi is not None:
        (tools / "nvidia-smi").write_text(f"#!/bin/bash\n{smi}\n")
        (tools / "nvidia-smi").chmod(0o755)
    done = subprocess.run(
        [shutil.which("bash"), CONFIGS / "gpu_discovery.sh"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": str(tools), **changes},
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("smi", "changes", "addresses"),
    [
        (None, {}, []),
        ("echo 0; echo 1", {}, ["0", "1"]),
        ("echo 'Failed to initialize NVML'; exit 9", {}, []),
        ("echo 0; echo 1; echo 2", {"CUDA_VISIBLE_DEVICES": "1,2"}, ["0", "1"]),
        ("echo 0", {"CUDA_VISIBLE_DEVICES": ""}, []),
    ],
    ids=["no-nvidia-smi", "two", "broken-driver", "narrowed", "hidden"],
)
def test_discovery_tells_spark_the_gpus(tmp_path, smi, changes, addresses):
    assert _discover(tmp_path, smi, **changes) == {"name": "gpu", "addresses": addresses}


def test_horovods_discovery_lists_the_hosts_that_answer(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        (tmp_path / "hosts").write_text("# ours\n127.0.0.1 slots=4\nno-such-host.invalid slots=2\n")
        done = subprocess.run(
            [CONFIGS / "horovod" / "discover_hosts.sh"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
            env={
                **os.environ,
                "HOSTS": str(tmp_path / "hosts"),
                "SSH_PORT": str(server.getsockname()[1]),
            },
        )
    assert done.stdout == "127.0.0.1:4\n"


def test_a_manifest_of_the_workspace_can_be_read_without_spark(tmp_path):
    """Training reads tables on hosts that have no Spark."""
    code = "import sys, storage.tables; assert not any(m.startswith('pyspark') for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=harness.ROOT)
    assert tables.find_manifest(str(tmp_path), "pairs") is None


def test_submit_says_what_is_missing():
    for arguments, text in (
        (["standalone", "cpu", "--", "--config", "x"], "MASTER=spark://host:7077"),
        (["yarn", "cpu", "--", "--config", "x"], "HADOOP_CONF_DIR"),
        (["moon", "cpu", "--", "--config", "x"], "no moon/cpu in cluster_configs"),
        (["standalone", "gpu", "no_such_job", "--", "--config", "x"], "no job no_such_job"),
        (["standalone", "gpu"], "say what to work on"),
    ):
        done = subprocess.run(
            [harness.ROOT / "scripts" / "submit.sh", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=_environment(),
        )
        assert done.returncode == 2
        assert text in done.stderr


_ASK_FOR_GPUS = """\
import json, sys, time
from pyspark import TaskContext
from configs.schema import CocuConfig
from spark_jobs.engine.session import gpu_profile, open_session
from storage.units import Unit
from spark_jobs.engine.waves import map_units

def work(unit):
    time.sleep(0.5)
    found = {name: resource.addresses for name, resource in TaskContext.get().resources().items()}
    return json.dumps({"resources": found, "begun": time.time()})

session = open_session(CocuConfig())
units = [Unit(str(number), 0) for number in range(4)]
for profile in (None, gpu_profile(session)):
    print(json.dumps([json.loads(line) for line in map_units(session, units, work, profile)]))
"""


@pytest.mark.slow
def test_only_stages_that_ask_hold_gpus(tmp_path):
    """Spark counts what the discovery script says, so no card is needed to see who is given one."""
    discovery = tmp_path / "discovery.sh"
    discovery.write_text(f"#!/bin/bash\nCUDA_VISIBLE_DEVICES=0 exec {CONFIGS / 'gpu_discovery.sh'}\n")
    discovery.chmod(0o755)
    script = tmp_path / "ask.py"
    script.write_text(_ASK_FOR_GPUS)
    conf = {
        "spark.worker.resource.gpu.amount": "1",
        "spark.worker.resource.gpu.discoveryScript": str(discovery),
    }
    with harness.standalone_cluster(tmp_path / "daemons", [harness.Worker(cores=2)], conf) as url:
        command = [
            str(Path(sys.prefix) / "bin" / "spark-submit"), "--master", url,
            "--properties-file", str(CONFIGS / "standalone" / "gpu" / "spark-defaults.conf"),
            "--driver-memory", "1g", "--conf", "spark.executor.memory=512m", "--conf", "spark.executor.cores=2",
            "--conf", f"spark.pyspark.python={sys.executable}", "--conf", "spark.ui.enabled=false", str(script),
        ]  # fmt: skip
        done = harness.run(command, PYTHONPATH=str(harness.ROOT))
    plain, asking = map(json.loads, [line for line in done.stdout.splitlines() if line.startswith("[")])
    assert [task["resources"] for task in plain] == [{}] * 4
    assert [task["resources"] for task in asking] == [{"gpu": ["0"]}] * 4
    begun = sorted(task["begun"] for task in asking)
    assert all(later - earlier > 0.4 for earlier, later in pairwise(begun)), (
        "two tasks had the one GPU at once"
    )
