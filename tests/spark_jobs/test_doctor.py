from __future__ import annotations

import shutil

import pytest

from configs.errors import UserError
from configs.loading import load_config
from spark_jobs import doctor
from spark_jobs.engine.task_errors import translated
from storage import addresses
from storage.small_files import write_atomically
from tests import harness


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doctor")
    clip = harness.write_tiny_clip(folder / "clip")
    return harness.write_config(folder, folder / "shards", clip)


def _config(path, workspace, *overrides):
    return load_config(str(path), [f"workspace={workspace}", *overrides])


def _lines(capsys, kind):
    return [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip().startswith(kind)]


def test_all_is_well_on_this_machine(spark, setup, tmp_path, capsys):
    assert doctor.run(spark, _config(setup, tmp_path))
    lines = _lines(capsys, "ok")
    kinds = [line.split()[1] for line in lines]
    # On the driver, then on the executor.
    for what, times in (("java", 2), ("versions", 2), ("gpu", 2), ("workspace", 2), ("clip", 2), ("free", 2)):
        assert kinds.count(what) == times, what
    assert kinds.count("spark") == kinds.count("horovod") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_model_is_told_and_where(spark, setup, tmp_path, capsys):
    config = _config(setup, tmp_path, f"clip.pretrained={tmp_path}/none.safetensors")
    assert not doctor.run(spark, config)
    failed = _lines(capsys, "FAIL")
    assert len(failed) == 2
    assert all("none.safetensors is not on" in line for line in failed)


def test_a_model_that_does_not_load_is_told(spark, setup, tmp_path, capsys):
    good = load_config(str(setup)).clip.pretrained
    bad = tmp_path / "bad.safetensors"
    shutil.copy(good, bad)
    bad.write_bytes(bad.read_bytes()[:-100])
    assert not doctor.run(spark, _config(setup, tmp_path / "workspace", f"clip.pretrained={bad}"))
    failed = _lines(capsys, "FAIL")
    assert len(failed) == 2
    assert all("does not load" in line for line in failed)


def test_a_workspace_that_cannot_be_written_is_told(spark, setup, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert not doctor.run(spark, _config(setup, tmp_path / "file" / "workspace"))
    failed = _lines(capsys, "FAIL")
    assert failed
    assert all("choose a writable workspace" in line for line in failed)


def test_gpus_that_are_promised_and_not_there_are_told():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    finding = doctor._attempt("gpu", lambda: doctor._gpus(promised=True))
    assert not finding.ok
    assert "sees none" in finding.text
    assert doctor._attempt("gpu", lambda: doctor._gpus(promised=False)).ok


def test_a_gpu_without_horovods_gpu_operations_is_told():
    finding = doctor._attempt("horovod", lambda: doctor._insist_on_gpu_operations(["gloo"]) or "fine")
    assert not finding.ok
    assert "built with gloo and without GPU operations" in finding.text
    assert "HOROVOD_NCCL_HOME" in finding.text
    assert doctor._attempt("horovod", lambda: doctor._insist_on_gpu_operations(["gloo", "nccl"]) or "fine").ok


def test_executors_that_would_compute_in_other_precisions_are_told():
    hosts = [
        doctor.Host(f"executor {n}", n, (), precision)
        for n, precision in enumerate(["fp32", "", "bf16", "fp32"])
    ]
    finding = doctor._attempt("precision", lambda: doctor.one_precision(hosts))
    assert not finding.ok
    assert "fp32 (executor 0) and bf16 (executor 2)" in finding.text
    assert "write clip.precision=fp32 or clip.precision=bf16" in finding.text
    alike = doctor._attempt("precision", lambda: doctor.one_precision([hosts[0], hosts[1], hosts[3]]))
    assert (alike.ok, alike.text) == (True, "fp32")


def test_other_versions_are_told_by_name():
    from spark_jobs.engine.versions import versions

    other = {**versions(), "numpy": "1.0.0"}
    finding = doctor._attempt("versions", lambda: doctor._versions(other))
    assert not finding.ok
    assert "(driver: 1.0.0)" in finding.text
    assert finding.text.startswith("numpy ")


def test_a_full_disk_is_told(monkeypatch):
    monkeypatch.setattr(doctor, "_FREE_GB", 1e9)
    finding = doctor._attempt("free disk", doctor._disk)
    assert not finding.ok
    assert "spark.local.dir" in finding.text


@pytest.mark.slow
def test_the_exit_code_tells_whether_all_is_well(setup, tmp_path):
    well = harness.run(harness.submit("doctor", setup, tmp_path), check=False)
    assert well.returncode == 0, well.stdout + well.stderr
    assert "all is well" in well.stdout
    ill = harness.run(
        harness.submit("doctor", setup, tmp_path, "clip.pretrained=/none.safetensors"), check=False
    )
    assert ill.returncode == 1
    assert "something is not" in ill.stdout
    assert "Traceback" not in ill.stdout + ill.stderr


def test_a_model_file_is_compared_by_size(setup, tmp_path):
    from spark_jobs.engine.versions import _model_fault, model_files

    files = model_files(load_config(str(setup)).clip)
    assert [option for option, _, _ in files] == ["clip.name", "clip.pretrained"]
    assert _model_fault(files) == ""
    (option, path, size), *_ = files
    assert f"lacks {option}={path}x" in _model_fault([(option, f"{path}x", size)])
    assert f"has another file ({size} bytes, driver: {size + 1})" in _model_fault([(option, path, size + 1)])


def test_a_host_without_credentials_for_the_bucket_is_told(store, monkeypatch, tmp_path):
    """The endpoint came by spark.executorEnv, the driver's credentials did not."""
    workspace, marker = "s3a://bucket/ws", "s3a://bucket/ws/_doctor.json"
    write_atomically(marker, b"{}")
    assert "is writable and shared" in doctor._workspace(workspace, marker)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    addresses._s3.cache_clear()
    with pytest.raises(
        UserError, match="ACCESS_DENIED.*no AWS_ACCESS_KEY_ID and no ~/.aws/credentials.*docs/clus"
    ):
        doctor._workspace(workspace, marker)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = test-key\naws_secret_access_key = test-secret\n"
    )
    addresses._s3.cache_clear()
    assert "is writable and shared" in doctor._workspace(workspace, marker)


def test_a_task_that_the_store_refused_is_one_sentence(store, monkeypatch, tmp_path):
    store.refuse = lambda request: 403
    with pytest.raises(OSError) as caught:
        write_atomically("s3a://bucket/ws/x", b"")
    told = translated(RuntimeError(f"PythonException: Traceback\n OSError: {caught.value}\n\tat java"))
    assert isinstance(told, UserError)
    assert "the store refused: " in str(told)
    assert "\n" not in str(told)
