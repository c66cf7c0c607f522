"""Train GroupViT on a training set: ``horovodrun -np N python -m training.train --config FILE`` or without horovodrun."""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from configs.arguments import parse_config
from configs.errors import UserError, run_entry
from configs.loading import to_plain
from configs.schema import CocuConfig
from models.groupvit import GroupViT, GroupViTConfig
from models.projector import replace_batch_norms
from models.weights import load_model
from training import distributed
from training.batches import BatchMaker, BatchOptions
from training.checkpoints import find_resume, load_training
from training.loop import Run, run_epochs
from training.progress import Progress
from training.recipe import GradientBuffer, build_optimiser
from training.step import LossOptions
from training.sync_norm import SyncBatchNorm
from training.telemetry import clock
from training.texts import Draws
from training.training_set import COLUMNS, TrainingSet, open_training_set

__all__ = ["HELP", "build", "main", "show_summary", "train"]

HELP = """\
Train GroupViT on the table training_set, with the concepts of its archives.

  python -m training.train --config configs/demo.yaml                      one process
  horovodrun -np 4 -H hostA:2,hostB:2 python -m training.train --config F   several (a GPU each, if there are)
  horovodrun --min-np 2 --max-np 8 --host-discovery-script D ... python -m training.train --config F   elastic
  spark-submit training/train_on_spark.py --config F                        inside Spark

Writes to train.output (default <workspace>/training): last.pt, best.pt and step-*.pt (evaluation reads any of
them), tensorboard/, pictures/, history.jsonl, summary.json. Started again it goes on from last.pt; with the same
number of processes the result is that of a run without a break."""


def train(config: CocuConfig) -> dict[str, Any]:
    """Train to the last epoch; returns the summary (rank 0 also writes and prints it).

    Raises:
        UserError: what is wrong with data, options or checkpoint, before any step where it can be known then.
    """
    started = time.monotonic()
    if not config.workspace:
        raise UserError(
            "workspace is not set: name the folder that holds the training set, e.g. workspace=workspace/demo"
        )
    data = open_training_set(_absolute(config.workspace))
    distributed.start()
    run = build(config, data)
    try:
        if distributed.elastic():
            from training.elastic import run_elastic

            run_elastic(run, _state_tensors(run.model, run.optimiser))
        else:
            run_epochs(run)
    finally:
        run.maker.close()
    run.progress.seconds += time.monotonic() - started
    summary = _summarise(run, time.monotonic() - started)
    if run.telemetry is not None:
        run.telemetry.finish(summary)
        show_summary(summary)
    return summary


def build(config: CocuConfig, data: TrainingSet) -> Run:
    """Model, optimiser, buffers, decoding processes; resumed where ``train.resume`` says so."""
    options = config.train
    device = _device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(options.threads or _cores())
    torch.manual_seed(options.seed)
    model = _model(config)
    if distributed.launched():
        replace_batch_norms(model, SyncBatchNorm)
    model.to(device)
    optimiser = build_optimiser(model, options)
    folder = Path(options.output or f"{config.workspace}/training").resolve()
    progress = Progress()
    found = find_resume(options.resume, folder) if distributed.rank() == 0 else None
    if found is not None:
        parts = load_training(found, model, optimiser, to_plain(config), data.recipe)
        progress = Progress.from_dict(parts["progress"])
        print(f"going on from {found}: epoch {progress.epoch}, step {progress.global_step:,}", flush=True)
    if (
        not distributed.elastic()
    ):  # there rank 0's state is handed out when training starts, also to late joiners
        progress = Progress.from_dict(distributed.broadcast(progress.to_dict()))
        distributed.broadcast_tensors(_state_tensors(model, optimiser))
    if options.compile:
        model.compile_layers()
    return Run(
        config=config,
        folder=folder,
        data=data,
        model=model,
        optimiser=optimiser,
        buffer=GradientBuffer(model, scalars=3),
        options=LossOptions(
            options.reduction,  # type: ignore[arg-type]
            options.multi_label_weight,
            options.match,
            use_bf16(options.precision, device),
            options.accumulate,
        ),
        maker=BatchMaker(_batch_options(config, model.config, device)),
        samples=_samples(config, data, model.config),
        progress=progress,
    )


def _model(config: CocuConfig) -> GroupViT:
    wanted = GroupViTConfig.preset(config.train.model, **model_changes(config.train.model_options))
    if not config.train.init:
        return GroupViT(wanted)
    model, _ = load_model(config.train.init)
    if model.config != wanted:
        raise UserError(
            f"train.init={config.train.init}: its sizes are not those of train.model={config.train.model} and "
            "train.model_options; write those it was made with"
        )
    return model


def model_changes(options: dict[str, Any]) -> dict[str, Any]:
    """``train.model_options`` as the preset takes them.

    Raises:
        UserError: a name that GroupViT's configuration does not have, or a value of another type.
    """
    types = {entry.name: type(getattr(GroupViTConfig(), entry.name)) for entry in fields(GroupViTConfig)}
    for name, value in options.items():
        if name not in types:
            near = difflib.get_close_matches(name, types, n=1)
            hint = f"did you mean {near[0]}" if near else f"known: {', '.join(types)}"
            raise UserError(f"train.model_options has no entry {name!r}; {hint}")
        wanted = types[name]
        accepted = {float: (int, float), tuple: (list, tuple)}.get(wanted, wanted)
        if not isinstance(value, accepted) or (isinstance(value, bool) and wanted is not bool):
            raise UserError(f"train.model_options.{name}={value!r}: write {_KINDS[wanted]}")
    return dict(options)


_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word",
    tuple: "a list of whole numbers",
}


def _device(wanted: str) -> torch.device:
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("train.device=cuda: torch sees no GPU here; write train.device=auto or cpu")
    number = distributed.local_rank() % torch.cuda.device_count()
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _cores() -> int:
    """This process' share of the host's cores."""
    return max(1, len(os.sched_getaffinity(0)) // distributed.local_size())


def use_bf16(precision: str, device: torch.device) -> bool:
    """``auto``: where the device multiplies bfloat16 matrices in hardware; elsewhere it is slower than float32."""
    fast = device.type == "cuda" or torch.cpu.get_capabilities().get("amx_bf16", False)
    return precision == "bf16" or (precision == "auto" and fast)


def _batch_options(config: CocuConfig, sizes: GroupViTConfig, device: torch.device) -> BatchOptions:
    options = config.train
    workers = options.workers
    if workers < 0:  # on a GPU the cores have nothing else to do; on a CPU the step itself needs them
        workers = max(1, _cores() - 1) if device.type == "cuda" else 1
    return BatchOptions(
        image_size=sizes.image_size,
        draws=Draws(options.sampling, options.prompts, options.temperature, options.seed, options.negatives),
        seed=options.seed,
        context_length=sizes.context_length,
        augment=options.augment,
        workers=workers,
        prefetch=options.prefetch,
        bad_images=options.bad_images,
        pin=device.type == "cuda",
    )


def _samples(config: CocuConfig, data: TrainingSet, sizes: GroupViTConfig) -> torch.Tensor:
    """The first pictures of the table, as the model takes them."""
    from training.readers import read_groups

    count = config.train.pictures
    if count <= 0:
        return torch.empty(0)
    table = next(read_groups("arrow", data.groups[:1], COLUMNS)).slice(0, count)
    options = BatchOptions(sizes.image_size, Draws("none"), augment="none", bad_images="replace")
    with BatchMaker(options) as maker:
        return next(maker.batches([table], 0)).images


def _state_tensors(model: GroupViT, optimiser: torch.optim.Optimizer) -> list[torch.Tensor]:
    """All tensors that must be equal on all ranks."""
    states = [tensor for state in optimiser.state.values() for tensor in state.values()]
    return [*model.state_dict().values(), *states]


def _summarise(run: Run, seconds: float) -> dict[str, Any]:
    progress = run.progress
    return {
        "epochs": progress.epoch,
        "steps": progress.global_step,
        "rows": progress.rows,
        "first_epoch_loss": progress.losses[0] if progress.losses else None,
        "last_epoch_loss": progress.losses[-1] if progress.losses else None,
        "losses": progress.losses,
        "skipped_steps": progress.skipped,
        "bad_images": progress.bad_images,
        "rows_left_out": progress.left_out,
        "sampling": run.config.train.sampling,
        "processes": distributed.size(),
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "seconds": round(seconds, 1),
        "checkpoint": str(run.folder / "last.pt"),
    }


def show_summary(summary: dict[str, Any]) -> None:
    """The last line of a training."""
    losses = summary["losses"]
    fall = f"loss {losses[0]:.3f} -> {losses[-1]:.3f}" if losses else "no epoch"
    print(
        f"train: {summary['epochs']} epochs, {summary['steps']:,} steps, {summary['rows']:,} rows, {fall}, "
        f"{summary['skipped_steps']} steps skipped, {summary['bad_images']} images did not decode, "
        f"{clock(summary['seconds'])}; {summary['checkpoint']}",
        flush=True,
    )


def _absolute(workspace: str) -> str:
    return workspace if "://" in workspace else str(Path(workspace).resolve())


def main(argv: Sequence[str]) -> int:
    """Entry of the process."""
    train(parse_config(argv, "python -m training.train", HELP, ["train"]))
    return 0


if __name__ == "__main__":
    run_entry(main)
