"""How good a model is while it is trained: against the evaluation's command and the losses' definitions."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from configs.errors import UserError
from configs.loading import load_config
from evaluation import evaluate
from evaluation.mask_files import decode_mask
from models.groupvit import GroupViT, GroupViTConfig
from models.losses import contrastive_loss, multi_label_loss
from models.pixels import normalise
from models.templates import PROMPT_TEMPLATES
from models.tokenize import tokenize
from models.weights import load_model
from tests.evaluation.benchmarks.layouts import make_layout
from tests.training.launch import run, train_command
from tests.training.synthetic import write_training_set
from training.feed.augment import centre_box
from training.feed.decode import open_rgb
from training.feed.texts import Draws, prompt_texts, prompt_words
from training.feed.training_set import TrainingSet, open_training_set
from training.progress import Progress
from training.train import train
from training.validation.held_out import groups_held_out, split
from training.validation.signs import groups_used, signs

ROWS = [50, 70, 33, 47]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    write_training_set(folder, ROWS, group_rows=16)
    for _, mask in make_layout(folder / "scenes", "voc"):
        few = decode_mask(mask.read_bytes())
        Image.fromarray(np.where(few == 255, 255, few % 4).astype(np.uint8)).save(mask)
    (folder / "classes.txt").write_text("background\ndog\ncat\nboat\n")
    return folder


@pytest.fixture(scope="module")
def validated(workspace: Path) -> Path:
    """Two processes, validated every ten steps by both measures."""
    out = workspace / "validated"
    command = train_command(
        workspace, f"train.output={out}", "train.epochs=2", "train.held_out=0.2", "train.keep=50",
        "train.validate.benchmark=folder", f"train.validate.data={workspace}/scenes",
        f"train.validate.classes={workspace}/classes.txt", "train.validate.every=4 steps", processes=2,
    )  # fmt: skip
    done = run(command)
    assert done.returncode == 0, done.stdout + done.stderr
    (out / "stdout").write_text(done.stdout)
    return out


def validations(out: Path) -> list[dict]:
    entries = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [entry for entry in entries if "validation" in entry]


def checkpoint(out: Path, entry: dict) -> Path:
    return out / f"step-{entry['step']:09d}.pt"


@pytest.mark.slow
def test_every_miou_is_the_one_that_the_command_finds(
    workspace: Path, validated: Path, tmp_path: Path
) -> None:
    entries = validations(validated)
    steps = json.loads((validated / "summary.json").read_text())["steps"]
    assert [entry["step"] for entry in entries] == sorted({*range(4, steps + 1, 4), steps})
    found = []
    for place, entry in enumerate(entries):
        out = tmp_path / str(place)
        options = ["--benchmark", "folder", "--data", str(workspace / "scenes"), "--out", str(out)]
        options += [
            "--classes",
            str(workspace / "classes.txt"),
            "--checkpoint",
            str(checkpoint(validated, entry)),
        ]
        assert evaluate.main(options) == 0
        found.append(json.loads((out / "results.json").read_text())["benchmarks"][0]["miou"])
        assert entry["validation"]["miou"] == entry["validation"]["miou/folder"] == found[-1]
    assert len(set(found)) > 1, "one figure for all checkpoints proves nothing"
    best = checkpoint(validated, entries[int(np.argmax(found))])
    assert (validated / "best.pt").read_bytes() == best.read_bytes()
    said = [line for line in (validated / "stdout").read_text().splitlines() if "validation at step" in line]
    assert len(said) == len(entries)
    events = EventAccumulator(str(validated / "tensorboard"))
    events.Reload()
    assert {"validation/miou", "validation/loss"} <= set(events.Tags()["scalars"])


def reference_loss(path: Path, held: list) -> np.ndarray:
    """Total, caption and prompt loss, group by group, from the rows: no reader, batch maker or step of training."""
    model, _ = load_model(path)
    losses, rows = [], []
    for group in held:
        table = pq.ParquetFile(group.file).read_row_group(group.number)
        pictures = [open_rgb(jpeg) for jpeg in table.column("image").to_pylist()]
        size, context = (model.config.image_size,) * 2, model.config.context_length
        pixels = [
            np.asarray(p.crop(centre_box(*p.size)).resize(size, Image.Resampling.BICUBIC)) for p in pictures
        ]
        draws = Draws("cluster", 3, 0.5, 0)
        texts = prompt_texts(table, prompt_words(table, 0, draws), 0, draws)
        with torch.no_grad():
            images = model.encode_image(normalise(torch.from_numpy(np.stack(pixels)))).pooled
            captions = model.encode_text(tokenize(table.column("caption").to_pylist(), context))
            prompts = torch.stack([model.encode_text(tokenize(row, context)) for row in texts])
            scales = model.scales()
            caption = contrastive_loss(images, captions, scales.caption)
            prompt = multi_label_loss(images, prompts, scales.prompts)
        losses.append([float(caption + prompt), float(caption), float(prompt)])
        rows.append(table.num_rows)
    assert len(PROMPT_TEMPLATES) == 80
    return np.average(losses, axis=0, weights=rows)


@pytest.mark.slow
def test_held_out_pairs_are_not_trained_on_and_their_loss_is_that_of_the_definition(
    workspace: Path, validated: Path
) -> None:
    data = open_training_set(str(workspace))
    trained, held = split(data, groups_held_out(0.2, len(data.groups)), 0)
    assert trained.rows + held.rows == sum(ROWS)
    summary = json.loads((validated / "summary.json").read_text())
    assert summary["rows"] == 2 * trained.rows
    last = validations(validated)[-1]
    figures = [last["validation"][name] for name in ("loss", "caption_loss", "prompt_loss")]
    np.testing.assert_allclose(figures, reference_loss(checkpoint(validated, last), held.groups), rtol=1e-4)


OPTIONS = (
    "train.model=tiny", "train.batch_size=8", "train.workers=0", "train.pictures=0", "train.reader=arrow", "train.threads=1",
    "train.precision=fp32",
)  # fmt: skip


def trained(*options: str) -> None:
    """A training in this process."""
    threads = torch.get_num_threads()
    try:
        train(load_config(None, [*OPTIONS, *options]))
    finally:
        torch.set_num_threads(threads)


def spoil(file: Path) -> None:
    """Make a checkpoint forget what it has learnt: what follows is worse by far, whatever a processor rounds."""
    state = torch.load(file, weights_only=True)
    for value in state["model"].values():
        if value.ndim > 1:
            value.neg_()
    for name in ("logit_scale", "multi_label_logit_scale"):
        state["model"][name].fill_(math.log(100))
    torch.save(state, file)


def test_held_out_loss_alone_chooses_the_best_and_resuming_remembers_it(workspace: Path) -> None:
    out = workspace / "held"
    options = (f"workspace={workspace}", f"train.output={out}", "train.keep=50", "train.lr=0.3")
    trained(*options, "train.epochs=2", "train.held_out=0.2")
    spoil(out / "last.pt")
    trained(*options, "train.epochs=3", "train.held_out=0.2")  # goes on from there
    entries = validations(out)
    losses = [entry["validation"]["loss"] for entry in entries]
    assert len(losses) == 3
    assert int(np.argmin(losses)) == 1, "the best is neither the first nor the last"
    best = checkpoint(out, entries[int(np.argmin(losses))])
    assert (out / "best.pt").read_bytes() == best.read_bytes()
    with pytest.raises(UserError, match="train.held_out was 3 and is now 8"):
        trained(*options, "train.epochs=4", "train.held_out=0.5")
    trained(*options, "train.epochs=4")  # auto: as many as before, where so small a table has none of its own
    assert torch.load(out / "last.pt", weights_only=True)["configuration"]["train"]["held_out"] == 3
    assert len(validations(out)) == 4


def test_the_split_is_a_function_of_table_share_and_seed() -> None:
    data = TrainingSet([type("G", (), {"rows": n + 1})() for n in range(300)], "r", sum(range(1, 301)))
    for wanted, count in ((0.1, 30), ("auto", 3), (0.0001, 1), (0, 0)):
        assert groups_held_out(wanted, 300) == count
        trained, held = split(data, count, 0)
        assert len(held.groups) == count
        assert len(trained.groups) == 300 - count
        assert trained.rows + held.rows == data.rows
        assert not set(map(id, held.groups)) & set(map(id, trained.groups))
        assert split(data, count, 0)[1] == held
    assert split(data, 30, 1)[1] != split(data, 30, 0)[1]
    assert groups_held_out("auto", 99) == groups_held_out(0, 1) == 0
    assert groups_held_out("auto", 1 << 20) == 40
    with pytest.raises(UserError, match="none would be left"):
        groups_held_out(0.5, 1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["train.validate.every=often"], "train.validate.every='often': write a number of epochs or steps"),
        (["train.validate.benchmark=voc"], "train.validate.benchmark=voc needs train.validate.data"),
        (["train.held_out=1.5"], "train.held_out is auto or a share"),
        (
            ["train.validate.benchmark=vok", "train.validate.data=."],
            "train.validate.benchmark: 'vok' is unknown; did you mean 'voc'?",
        ),
        (
            ["train.validate.benchmark=folder", "train.validate.data=."],
            "train.validate.benchmark folder needs train.validate.classes FILE",
        ),
    ],
)
def test_mistakes_are_one_line_before_any_step(workspace: Path, options: list[str], says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        trained(f"workspace={workspace}", f"train.output={workspace}/none", *options)
    assert not (workspace / "none" / "last.pt").exists()


def test_a_model_that_uses_one_group_is_called_collapsed() -> None:
    torch.manual_seed(0)
    model = GroupViT(GroupViTConfig.preset("tiny"))
    images = torch.randint(0, 255, (5, 32, 32, 3), dtype=torch.uint8)
    assign = model.image_encoder.stages[0].grouping.assign
    with torch.no_grad():
        assign.k.weight.zero_()  # every patch likes the same group best
        assign.k.bias.fill_(1.0)
    used = groups_used(model, images)
    assert used[0] == 1.0
    assert [line for line in signs(used, {}, [], True) if "collapsed" in line and "stage 1" in line]
    assert model.training


def test_caps_and_plateaus_are_said_and_a_training_that_improves_is_left_alone() -> None:
    calm = {"captions": 14.3, "prompts": 99.0}
    assert signs((7.5, 3.0), calm, [10, 12, 13, 14, 15, 16, 17], True) == []
    assert signs((7.5, 3.0), calm, [5.0, 4.5, 4.2, 4.0, 3.9, 3.8, 3.7], False) == []
    assert "prompts is at its cap" in signs((7.5,), {"captions": 14.3, "prompts": 100.0}, [], True)[0]
    assert "plateau" in signs((), calm, [10, 17, 17.01, 16, 17, 16.5, 17.02], True)[0]
    assert "plateau" in signs((), calm, [5.0, 3.7, 3.8, 3.7, 3.75, 3.72, 3.69], False)[0]


def test_another_measure_begins_anew_and_what_is_no_number_is_never_the_best() -> None:
    progress = Progress()
    assert not progress.validate("loss", float("nan"), False)
    assert progress.validate("loss", 3.0, False)
    assert not progress.validate("loss", 3.5, False)
    assert progress.validate("loss", 2.0, False)
    assert progress.validate("mIoU (voc)", 4.0, True)
    assert not progress.validate("mIoU (voc)", 3.0, True)
    again = Progress.from_dict(progress.to_dict())
    assert not again.validate("mIoU (voc)", 4.0, True)
