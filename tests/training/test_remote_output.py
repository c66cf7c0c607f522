"""Trainings whose output is in a bucket: what is there afterwards, going on from it, a store that fails."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

import pytest
import torch

from configs.errors import UserError
from configs.loading import load_config
from storage.addresses import list_folder, resolve
from storage.copies import download_folder
from storage.small_files import read_small
from tests.training.launch import ROOT, TINY, run, train_command
from tests.training.synthetic import write_training_set
from training.remote_output import RemoteOutput, remote_output
from training.train import train

OUTPUT = "s3a://bucket/ws/training"


def _names() -> list[str]:
    filesystem, path = resolve(OUTPUT)
    infos = list_folder(filesystem, path, recursive=True)
    return [info.path.removeprefix(f"{path}/") for info in infos if info.is_file]


@pytest.mark.slow
def test_a_training_goes_on_from_the_bucket_as_from_a_disk(store, tmp_path):
    write_training_set(tmp_path / "ws", [20, 12], group_rows=8)
    common = ("train.keep=2", "train.save_steps=3", "train.reader=arrow")
    local = train_command(tmp_path / "ws", f"train.output={tmp_path}/out", "train.epochs=2", *common)
    assert run(local, timeout=600).returncode == 0
    for epochs in (1, 2):
        command = train_command(tmp_path / "ws", f"train.output={OUTPUT}", f"train.epochs={epochs}", *common)
        done = run(command, timeout=600)
        assert done.returncode == 0, done.stderr
    assert f"going on from {OUTPUT}/last.pt" in done.stdout
    download_folder(OUTPUT, tmp_path / "back")
    ours, twin = (torch.load(f"{tmp_path}/{name}/last.pt", weights_only=True) for name in ("back", "out"))
    assert all(torch.equal(value, twin["model"][name]) for name, value in ours["model"].items())
    steps = [json.loads(line)["step"] for line in (tmp_path / "back" / "history.jsonl").open()]
    assert steps == [json.loads(line)["step"] for line in (tmp_path / "out" / "history.jsonl").open()]
    kept = {path.name for path in (tmp_path / "out").glob("*.pt")}
    assert {path.name for path in (tmp_path / "back").glob("*.pt")} == kept
    assert json.loads((tmp_path / "back" / "summary.json").read_text())["checkpoint"] == f"{OUTPUT}/last.pt"
    assert list((tmp_path / "back" / "tensorboard").iterdir())
    assert not (ROOT / "s3a:").exists()
    _go_on_elsewhere(tmp_path, common)


def _go_on_elsewhere(tmp_path: Path, common: tuple[str, ...]) -> None:
    """The next pod writes elsewhere, and begins at a step or with the weights of a checkpoint that is in the bucket."""
    steps = sorted(name for name in _names() if name.startswith("step-"))
    options = (f"workspace={tmp_path / 'ws'}", *TINY, *common, "train.threads=1")

    def trained(*more: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            train(load_config(None, [*options, *more]))
        return out.getvalue()

    threads = torch.get_num_threads()
    said = trained(f"train.resume={OUTPUT}/{steps[0]}", f"train.output={OUTPUT}-2", "train.epochs=2")
    assert f"going on from {OUTPUT}/{steps[0]}: epoch 1" in said
    download_folder(f"{OUTPUT}-2", tmp_path / "again")
    ours, twin = (torch.load(f"{tmp_path}/{name}/last.pt", weights_only=True) for name in ("again", "out"))
    assert all(torch.equal(value, twin["model"][name]) for name, value in ours["model"].items())
    still = (
        "train.lr=1e-9",
        "train.warmup_lr=0",
        "train.min_lr=0",
        "train.epochs=1",
        f"train.output={tmp_path}/begun",
    )
    trained(f"train.init={OUTPUT}/last.pt", *still)
    found = torch.load(tmp_path / "begun" / "last.pt", weights_only=True)["model"]
    weights = [name for name in found if "running" not in name and "tracked" not in name]
    assert all(torch.allclose(found[name], twin["model"][name], atol=1e-6) for name in weights)
    for option, what in (("resume", "checkpoint; write auto, never"), ("init", "weight file")):
        with pytest.raises(UserError, match=f"train.{option}={OUTPUT}/none.pt: no such {what}"):
            trained(f"train.{option}={OUTPUT}/none.pt", f"train.output={tmp_path}/no")
    torch.set_num_threads(threads)


def test_a_bucket_that_refuses_is_said_before_the_first_step(store, tmp_path):
    store.refuse = lambda request: 403
    with pytest.raises(
        UserError, match="train.output=s3a://bucket/ws/training: nothing can be written there"
    ):
        RemoteOutput(OUTPUT)


def test_what_a_failing_store_did_not_take_comes_with_the_next_checkpoint(store, capsys):
    with RemoteOutput(OUTPUT) as output:
        (output.folder / "last.pt").write_bytes(b"one")
        store.refuse = lambda request: 403 if request.method != "GET" else None
        output.try_to_send(keep=3)
        assert f"{OUTPUT}: not copied this time" in capsys.readouterr().err
        store.refuse = lambda request: None
        (output.folder / "history.jsonl").write_bytes(b"{}")
        output.try_to_send(keep=3)
        assert _names() == ["history.jsonl", "last.pt"]
        sent = store.count("POST", "last.pt")
        (output.folder / "history.jsonl").write_bytes(b"{}{}")
        output.try_to_send(keep=3)
        assert store.count("POST", "last.pt") == sent  # what did not change is not copied again
    assert read_small(f"{OUTPUT}/history.jsonl") == b"{}{}"
    assert not output.folder.exists()


def test_files_that_a_store_does_not_take_at_the_end_stay_on_the_machine(store):
    output = RemoteOutput(OUTPUT)
    (output.folder / "last.pt").write_bytes(b"one")
    store.refuse = lambda request: 403
    with (
        pytest.raises(UserError, match="the last files were not copied .* they are in .*cocu-training-"),
        output,
    ):
        pass
    assert (output.folder / "last.pt").read_bytes() == b"one"
    (output.folder / "last.pt").unlink()
    output.folder.rmdir()


def test_checkpoints_of_earlier_runs_count_among_those_that_are_kept(store):
    for run_number in range(2):
        with RemoteOutput(OUTPUT) as output:
            for step in (1, 2):
                (output.folder / f"step-{10 * run_number + step:09d}.pt").write_bytes(b"weights")
                output.send(keep=2)
    assert _names() == ["step-000000011.pt", "step-000000012.pt"]


def test_a_folder_of_this_machine_is_written_to_directly(tmp_path):
    assert remote_output(str(tmp_path / "out")) is None
    assert remote_output(f"file://{tmp_path}/out") is None
    assert os.listdir(Path(tmp_path)) == []
