"""A real standalone cluster, the packed environment, and a submit from elsewhere: `make cluster-test`."""

from __future__ import annotations

import json
import os
import shlex
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
# What the eight spark-defaults.conf held before base and overlays took their place.
BEFORE = json.loads((Path(__file__).parent / "cluster_settings.json").read_text())


def _shown(kind: str, device: str, *arguments: str, **changes: str) -> str:
    """The output of `submit.sh KIND DEVICE --print ...`."""
    command = [harness.ROOT / "scripts" / "submit.sh", kind, device, "--print", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment(**changes))
    assert done.returncode == 0, done.stderr
    return done.stdout


def _origins(shown: str) -> dict[str, tuple[str, str]]:
    """Setting -> (origin, value) of what `--print` shows."""
    found, origin = {}, ""
    for line in shown.partition("# command\n")[0].splitlines():
        if line.startswith("# "):
            origin = line[2:]
        else:
            name, value = line.split(None, 1)
            assert name not in found, f"{name} is shown twice"
            found[name] = (origin, value)
    return found


def _properties(kind: str, device: str) -> dict[str, str]:
    """The settings of the files, without what submit.sh adds."""
    shown = _origins(_shown(kind, device))
    return {name: value for name, (origin, value) in shown.items() if origin != "scripts/submit.sh"}


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


@pytest.mark.parametrize("which", BEFORE)
def test_base_and_overlays_give_what_eight_files_gave(which):
    expected = dict(BEFORE[which])
    if which.startswith("kubernetes"):
        # submit.sh always gave this one as an option: with the place of this folder.
        del expected["spark.kubernetes.executor.podTemplateFile"]
    assert _properties(*which.split("-")) == expected


def test_what_is_printed_says_whence_and_options_win():
    shown = _shown(
        "standalone", "gpu", "--conf", "spark.executor.memory=7g", "--driver-memory", "9g", "--conf=spark.x.y=a b",
        MASTER="spark://here:1", DRIVER_PYTHON="/venv/bin/python",
    )  # fmt: skip
    found = _origins(shown)
    assert found["spark.locality.wait"] == ("cluster_configs/base.conf", "0s")
    assert found["spark.speculation"] == ("cluster_configs/cluster.conf", "true")
    assert found["spark.executor.cores"] == ("cluster_configs/gpu.conf", "8")
    assert found["spark.master"] == ("scripts/submit.sh", "spark://here:1")
    assert found["spark.pyspark.driver.python"] == ("scripts/submit.sh", "/venv/bin/python")
    assert found["spark.executor.memory"] == ("command line", "7g")
    assert found["spark.driver.memory"] == ("command line", "9g")
    assert found["spark.x.y"] == ("command line", "a b")


@pytest.mark.slow
def test_what_is_printed_is_what_the_driver_gets(tmp_path):
    """Settings as Spark itself sees them, of the command that submit.sh runs: local, with options of its own."""
    kept = tmp_path / "spark-submit"
    kept.write_text(f"#!/bin/bash\n{_only_settings()}")
    kept.chmod(0o755)
    options = ["--conf", "spark.executor.memory=700m", "--driver-memory", "600m"]
    shown = _origins(_shown("local", "gpu", *options, DRIVER_PYTHON=sys.executable))
    done = subprocess.run(
        [harness.ROOT / "scripts" / "submit.sh", "local", "gpu", *options, "--", "--config", "x"],
        capture_output=True, text=True, check=False, env=_environment(SPARK_SUBMIT=str(kept), DRIVER_PYTHON=sys.executable),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert {name: seen.get(name) for name in shown} == {name: value for name, (_, value) in shown.items()}


def _only_settings() -> str:
    """A stand-in that runs the real spark-submit with the same options and a script that shows the settings."""
    real = Path(sys.prefix) / "bin" / "spark-submit"
    code = "import json; from pyspark import SparkConf, SparkContext; SparkContext._ensure_initialized(); "
    code += "print(json.dumps(dict(SparkConf().getAll())))"
    return (
        'options=(); while [ "${1##*.}" != py ]; do options+=("$1"); shift; done\n'
        f'printf \'%s\' {shlex.quote(code)} > "$(dirname "$0")/show.py"\n'
        f'exec {real} "${{options[@]}}" "$(dirname "$0")/show.py"\n'
    )


@pytest.mark.parametrize(
    ("config", "seen"),
    [
        ("configs/demo.yaml", "/opt/cocu/configs/demo.yaml"),
        ("/opt/cocu/configs/mine.yaml", "/opt/cocu/configs/mine.yaml"),
    ],
)
def test_kubernetes_reads_the_configuration_in_the_image(config, seen):
    for arguments in (["--config", config], [f"--config={config}"]):
        shown = _shown(
            "kubernetes", "cpu", "--", *arguments, "workspace=s3a://b/w", MASTER="k8s://https://h:1"
        )
        command = shown.splitlines()[-1]
        assert f"pipeline.py {' '.join(arguments).replace(config, seen)} " in command


def test_kubernetes_refuses_a_configuration_that_no_image_holds(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("{}")
    for path in (str(mine), "configs/no-such.yaml"):
        done = subprocess.run(
            [harness.ROOT / "scripts" / "submit.sh", "kubernetes", "cpu", "--", "--config", path],
            capture_output=True, text=True, check=False, cwd=harness.ROOT,
            env=_environment(MASTER="k8s://https://h:1", SPARK_SUBMIT="/bin/true"),
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (2, "")
        assert f"--config {path} is not in the image" in done.stderr


@pytest.mark.parametrize("which", BEFORE)
def test_every_property_is_one_that_spark_knows(which, known_properties):
    unknown = [
        name
        for name in _properties(*which.split("-"))
        if name not in known_properties
        and not name.startswith(("spark.executorEnv.", "spark.hadoop."))
        and not _is_pattern(name)
    ]
    assert unknown == []


def _managed() -> dict[str, dict[str, str]]:
    """Spark properties of the managed services' files."""
    emr = json.loads((CONFIGS / "emr" / "configurations.json").read_text())
    (defaults,) = (entry["Properties"] for entry in emr if entry["Classification"] == "spark-defaults")
    return {
        "emr": defaults,
        "databricks": json.loads((CONFIGS / "databricks" / "cluster.json").read_text())["spark_conf"],
    }


@pytest.mark.parametrize("service", ["emr", "databricks"])
def test_managed_services_have_known_properties_with_the_clusters_values(service, known_properties):
    found = _managed()[service]
    assert [name for name in found if name not in known_properties] == []
    ours = _properties("yarn", "cpu")
    # What the service itself decides is left out; nothing is there that the other clusters have otherwise.
    assert {name: ours[name] for name in found} == found
    assert found["spark.dynamicAllocation.enabled"] == "false"


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
    for kind in ("local", "standalone", "yarn", "kubernetes"):
        properties = _properties(kind, "gpu")
        assert "spark.task.resource.gpu.amount" not in properties
        if kind != "local":
            assert properties["spark.executor.resource.gpu.amount"] == "1"
            assert properties["spark.dynamicAllocation.enabled"] == "false"


def test_memory_is_explicit_everywhere():
    for which in BEFORE:
        if not which.startswith("local"):
            settings = _properties(*which.split("-"))
            assert {"spark.executor.memory", "spark.executor.memoryOverhead"} <= settings.keys()


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
    settings = tmp_path / "standalone-gpu.conf"
    settings.write_text(
        "\n".join(f"{name} {value}" for name, value in _properties("standalone", "gpu").items())
    )
    script = tmp_path / "ask.py"
    script.write_text(_ASK_FOR_GPUS)
    conf = {
        "spark.worker.resource.gpu.amount": "1",
        "spark.worker.resource.gpu.discoveryScript": str(discovery),
    }
    with harness.standalone_cluster(tmp_path / "daemons", [harness.Worker(cores=2)], conf) as url:
        command = [
            str(Path(sys.prefix) / "bin" / "spark-submit"), "--master", url,
            "--properties-file", str(settings),
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
