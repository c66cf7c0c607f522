"""Whole trainings: what is on disk after them, and what is said when something is wrong.

The undisturbed one, the killed one and those of several ranks are processes of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.weights import load_model, save_model
from tests.training.launch import ROOT, environment, run, run_here, train_command
from tests.training.synthetic import write_training_set

ROWS = [50, 70, 33, 47]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    write_training_set(folder, ROWS, group_rows=16)
    return folder


@pytest.fixture(scope="module")
def calm(workspace: Path) -> Path:
    """A training of three epochs without a break."""
    out = workspace / "calm"
    done = run(train_command(workspace, f"train.output={out}", "train.epochs=3"))
    assert done.returncode == 0, done.stderr
    (out / "stdout").write_text(done.stdout)
    return out


def tensors(path: Path) -> dict[str, torch.Tensor]:
    content = torch.load(path, weights_only=True)
    state = content["optimiser"]["state"]
    found = dict(content["model"])
    found.update(
        {f"{place}.{name}": value for place, entry in state.items() for name, value in entry.items()}
    )
    return found


def assert_equal_checkpoints(one: Path, other: Path) -> None:
    left, right = tensors(one), tensors(other)
    assert left.keys() == right.keys()
    different = [name for name, value in left.items() if not torch.equal(value, right[name])]
    assert different == []


def fails(command: list[str], *words: str, timeout: float = 120, here: bool = True) -> str:
    """The command must end with exit code 2 (1 under horovodrun) and one line that holds the words."""
    here = here and "horovodrun" not in command[0]
    done = run_here(command) if here else run(command, timeout)
    text = done.stdout + done.stderr
    assert done.returncode == (1 if "horovodrun" in command[0] else 2), text
    lines = [line for line in text.splitlines() if "error: " in line and all(word in line for word in words)]
    assert lines, text
    assert "horovodrun" in command[0] or "Traceback" not in text
    return lines[0]


def test_loss_falls_and_everything_is_there(calm: Path) -> None:
    summary = json.loads((calm / "summary.json").read_text())
    assert summary["rows"] == 3 * sum(ROWS)
    assert summary["losses"][2] < 0.9 * summary["losses"][0]
    assert summary["skipped_steps"] == 0
    assert not (calm / "best.pt").exists(), "nothing measured which is best"
    assert "note: nothing says how good the model becomes" in (calm / "stdout").read_text()
    model, extra = load_model(calm / "last.pt")
    assert extra["progress"]["epoch"] == 3
    assert extra["configuration"]["train"]["model"] == "tiny"
    assert sum(parameter.numel() for parameter in model.parameters()) == summary["parameters"]
    history = [json.loads(line) for line in (calm / "history.jsonl").read_text().splitlines()]
    epochs = [json.loads(line) for line in (calm / "epochs.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in epochs] == list(range(1, summary["epochs"] + 1))
    assert [line["loss"] for line in epochs] == pytest.approx(summary["losses"], abs=1e-6)
    assert sum(line["rows"] for line in epochs) == summary["rows"]
    assert [entry["step"] for entry in history] == sorted({entry["step"] for entry in history})
    assert history[-1]["step"] == summary["steps"]
    for place in (1, 2, 3):
        assert Image.open(calm / "pictures" / f"epoch-{place:04d}.png").size == (3 * 32, 2 * 32)
    assert "ETA" in (calm / "stdout").read_text()
    assert "loss" in (calm / "stdout").read_text().splitlines()[-1]


def test_tensorboard_has_scalars_and_pictures(calm: Path) -> None:
    events = EventAccumulator(str(calm / "tensorboard"))
    events.Reload()
    wanted = {
        "loss",
        "caption_loss",
        "prompt_loss",
        "caption_scale",
        "prompt_scale",
        "lr",
        "images_per_second",
        "data_wait",
        "grad_norm",
    }
    assert {f"train/{name}" for name in wanted} <= set(events.Tags()["scalars"])
    assert len(events.Images("grouping")) == 3


def test_only_the_newest_checkpoints_are_kept(calm: Path) -> None:
    assert len(list(calm.glob("step-*.pt"))) == 3
    assert not list(calm.glob(".*"))
    assert (calm / "last.pt").read_bytes() == max(calm.glob("step-*.pt")).read_bytes()


def kill_after(command: list[str], file: Path) -> None:
    """Start a training and kill -9 it once a checkpoint is there."""
    process = subprocess.Popen(
        command,
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    limit = time.monotonic() + 600
    while not file.exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the training ended before it was killed"
    assert file.exists()


@pytest.mark.slow
def test_killed_in_an_epoch_and_resumed_equals_undisturbed_bit_for_bit(workspace: Path, calm: Path) -> None:
    out = workspace / "killed"
    command = train_command(workspace, f"train.output={out}", "train.epochs=3", "train.save_steps=7")
    kill_after(command, out / "step-000000035.pt")  # two steps into the second epoch of 26
    done = run_here([*command, "train.workers=1", "train.reader=arrow"])  # where and how may change
    assert done.returncode == 0, done.stderr
    assert "going on from" in done.stdout
    assert_equal_checkpoints(calm / "last.pt", out / "last.pt")
    assert json.loads((out / "summary.json").read_text())["losses"] == pytest.approx(
        json.loads((calm / "summary.json").read_text())["losses"], rel=1e-12
    )


def test_a_finished_training_has_nothing_to_do(workspace: Path, calm: Path) -> None:
    before = (calm / "last.pt").read_bytes()
    done = run_here(train_command(workspace, f"train.output={calm}", "train.epochs=3"))
    assert done.returncode == 0, done.stderr
    assert (calm / "last.pt").read_bytes() == before


@pytest.mark.slow
def test_two_processes_train_and_go_on_as_one(workspace: Path) -> None:
    out = workspace / "two"
    done = run(
        train_command(workspace, f"train.output={out}", "train.epochs=2", "train.save_steps=5", processes=2)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["processes"], summary["rows"]) == (2, 2 * sum(ROWS))
    assert summary["losses"][1] < summary["losses"][0]
    # Back to a checkpoint in the middle of the second epoch, now with one process: the rest comes once.
    middle = sorted(out.glob("step-*.pt"))[-2]
    position = load_model(middle)[1]["progress"]
    assert position["epoch"] == 1
    assert position["steps"] > 0
    done = run_here(
        train_command(workspace, f"train.output={out}/alone", "train.epochs=2", f"train.resume={middle}")
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "alone" / "summary.json").read_text())["rows"] == 2 * sum(ROWS)


@pytest.mark.parametrize("sampling", ["top", "caption-nouns", "none"])
def test_other_samplings_train(workspace: Path, sampling: str, tmp_path: Path) -> None:
    done = run_here(
        train_command(workspace, f"train.output={tmp_path}", "train.epochs=1", f"train.sampling={sampling}")
    )
    assert done.returncode == 0, done.stderr
    history = json.loads((tmp_path / "history.jsonl").read_text().splitlines()[-1])
    assert (history["prompt_loss"] > 0) == (sampling != "none")


def test_wrong_options_and_tables(workspace: Path, tmp_path: Path) -> None:
    wrong = train_command(workspace, "train.sampling=clusters")
    fails(wrong, "train.sampling", "did you mean 'cluster'?", here=False)
    fails(train_command(workspace, "train.epoch=3"), "unknown key 'train.epoch'", "train.epochs")
    fails(train_command(tmp_path), "table 'training_set' is not in workspace", "export_training")
    fails(
        train_command(workspace, "train.resume=nowhere.pt"), "train.resume=nowhere.pt", "no such checkpoint"
    )


def test_wrong_checkpoints(workspace: Path, calm: Path, tmp_path: Path) -> None:
    shutil.copytree(calm, tmp_path / "out")
    last = tmp_path / "out" / "last.pt"
    command = train_command(workspace, f"train.output={tmp_path / 'out'}", "train.epochs=4")
    fails([*command, "train.seed=5"], "train.seed was 0 and is now 5", "train.resume=never")
    fails([*command, "train.model=demo"], "is of another model (assign_centred was False and is now True)")
    fails([*command, "train.match=both"], "train.match was 'pooled' and is now 'both'")
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    fails(command, str(last), "truncated or not a weight file")
    model, _ = load_model(calm / "last.pt")
    save_model(last, model)
    fails(command, "holds weights but no state of training", f"train.init={last}")
    other = tmp_path / "other"
    write_training_set(other, ROWS, group_rows=16, recipe="fedcba654321")
    last.write_bytes(whole)
    fails(
        train_command(other, f"train.output={tmp_path / 'out'}", "train.epochs=4"),
        "was trained on a training set of another configuration", "fedcba654321",
    )  # fmt: skip


def test_a_checkpoint_of_an_earlier_version_goes_on(workspace: Path, calm: Path, tmp_path: Path) -> None:
    """Options that it does not know were trained by their defaults, and notes that nobody reads now do no harm."""
    content = torch.load(calm / "last.pt", weights_only=True)
    for name in ("model_options", "negatives", "match"):
        del content["configuration"]["train"][name]
    for name in ("stem", "assign_gain", "assign_centred"):
        del content["config"][name]
    content["progress"]["seconds"] = 12.5
    torch.save(content, tmp_path / "last.pt")
    done = run_here(train_command(workspace, f"train.output={tmp_path}", "train.epochs=4"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["epochs"] == 4


def test_options_of_model_and_losses_train(workspace: Path, tmp_path: Path) -> None:
    options = ["train.negatives=archive", "train.match=both", "train.reduction=each", "train.epochs=2"]
    options += [
        "train.model_options={stem: convolution, assign_gain: 1.5, depths: [1, 1], group_tokens: [5, 0]}"
    ]
    done = run_here(train_command(workspace, f"train.output={tmp_path}", *options))
    assert done.returncode == 0, done.stderr
    losses = json.loads((tmp_path / "summary.json").read_text())["losses"]
    assert losses[1] < losses[0]
    model, _ = load_model(tmp_path / "last.pt")
    assert model.config.stem == "convolution"
    assert model.config.group_tokens == (5, 0)
    assert "image_encoder.embedding.projection.halvings.0.weight" in model.state_dict()


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("train.model_options.stemm=linear", "train.model_options has no entry 'stemm'; did you mean stem"),
        ("train.model_options.width=wide", "train.model_options.width='wide': write a whole number"),
        ("train.model_options.depths=3", "train.model_options.depths=3: write a list of whole numbers"),
        ("train.model_options.stem=round", "stem='round': write linear or convolution"),
        ("train.model_options.assign_gain=-1", "assign_gain=-1"),
        ("train.negatives=none", "train.negatives is 'none'; it must be one of all, same-concept, archive"),
        ("train.match=token", "train.match is 'token'; it must be one of pooled, segments, both, compete"),
    ],
)
def test_wrong_options_of_model_and_losses_are_one_line(workspace: Path, option: str, says: str) -> None:
    fails(train_command(workspace, option), says)


@pytest.mark.slow
def test_fewer_row_groups_than_processes(tmp_path: Path) -> None:
    write_training_set(tmp_path, [20], group_rows=20)
    fails(train_command(tmp_path, processes=2), "1 row groups for 2 processes", "export.row_group_rows")


def spoil_a_jpeg(workspace: Path) -> str:
    """Put half a JPEG into a row of the last file; returns its key."""
    file = max(workspace.rglob("*.parquet"))
    table = pq.ParquetFile(file).read()
    images = table.column("image").to_pylist()
    images[5] = images[5][: len(images[5]) // 3]
    place = table.schema.get_field_index("image")
    pq.write_table(table.set_column(place, "image", pa.array(images, pa.binary())), file, row_group_size=16)
    return table.column("key")[5].as_py()


@pytest.mark.slow
def test_a_corrupt_jpeg_stops_all_ranks_or_is_counted(tmp_path: Path) -> None:
    write_training_set(tmp_path, [40, 40], group_rows=16)
    key = spoil_a_jpeg(tmp_path)
    fails(train_command(tmp_path, "train.bad_images=stop", "train.epochs=1", processes=2), key)
    done = run_here(train_command(tmp_path, "train.epochs=2"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "training" / "summary.json").read_text())["bad_images"] == 2


def test_losses_that_are_no_numbers(workspace: Path, calm: Path, tmp_path: Path) -> None:
    model, _ = load_model(calm / "last.pt")
    with torch.no_grad():
        model.image_encoder.norm.weight[3] = float("nan")
    save_model(tmp_path / "nan.pt", model)
    command = train_command(
        workspace, f"train.init={tmp_path / 'nan.pt'}", f"train.output={tmp_path}", "train.epochs=1"
    )
    line = fails([*command, "train.nonfinite=stop"], "step 1: the loss or its gradient is no number")
    named = json.loads((tmp_path / "skipped-rank0.jsonl").read_text().splitlines()[0])
    assert named["step"] == 1
    assert len(named["keys"]) == 8
    assert named["keys"][0] in line
    fails([*command, "train.max_skipped=7"], "step 7:")
    assert not list(tmp_path.glob("step-*.pt"))
