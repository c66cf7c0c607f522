"""A training process put together: model, optimiser, buffers, batches; resumed where that is asked for."""

from __future__ import annotations

import difflib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError
from configs.processors import cores, threads
from configs.schema import CocuConfig
from models.groupvit import GroupViT, GroupViTConfig
from models.layers.projector import replace_batch_norms
from models.weights import load_model
from storage.addresses import join, resolve
from training import distributed
from training.checkpoints import LAST, find_resume, held_before, load_training, opened, recorded
from training.feed.batch_options import BatchOptions
from training.feed.batches import BatchMaker
from training.feed.readers import read_groups
from training.feed.texts import Draws
from training.feed.training_set import COLUMNS, TrainingSet
from training.freed_memory import keep_freed_memory
from training.gradients import GradientBuffer
from training.loop import Run
from training.progress import Progress
from training.recipe import build_optimiser
from training.remote_output import remote_output
from training.step import LossOptions
from training.sync_norm import SyncBatchNorm
from training.validation.held_out import groups_held_out, split
from training.validation.validate import Validation, every_of, open_benchmarks

__all__ = ["build", "model_changes", "state_tensors"]


def build(config: CocuConfig, data: TrainingSet) -> Run:
    """Model, optimiser, buffers, decoding processes; resumed where ``train.resume`` says so."""
    options = config.train
    device = _device(options.device)
    if device.type == "cpu":
        keep_freed_memory()
        torch.set_num_threads(options.threads or threads(distributed.local_size()))
    torch.manual_seed(options.seed)
    model = _model(config)
    benchmarks = open_benchmarks(options.validate, model.config.image_size)
    if distributed.launched():
        replace_batch_norms(model, SyncBatchNorm)
    model.to(device)
    optimiser = build_optimiser(model, options)
    output = options.output or join(config.workspace, "training")
    remote = remote_output(output)
    folder = Path(resolve(output)[1]).resolve() if remote is None else remote.folder
    if remote is not None and distributed.rank() == 0 and options.resume == "auto":
        remote.fetch(LAST)
    found = find_resume(options.resume, folder) if distributed.rank() == 0 else None
    data, held = split(data, _held_out(config, data, found), options.seed)
    progress = Progress()
    if found is not None:
        with opened(found, "train.resume", "checkpoint") as path:
            parts = load_training(path, model, optimiser, recorded(config, len(held.groups)), data.recipe)
        progress = Progress.from_dict(parts["progress"])
        shown = f"{remote.address}/{LAST}" if remote is not None and options.resume == "auto" else found
        print(f"going on from {shown}: epoch {progress.epoch}, step {progress.global_step:,}", flush=True)
    if (
        not distributed.elastic()
    ):  # there rank 0's state is handed out when training starts, also to late joiners
        progress = Progress.from_dict(distributed.broadcast(progress.to_dict()))
        distributed.broadcast_tensors(state_tensors(model, optimiser))
    if options.compile:
        model.compile_layers()
    loss_options = LossOptions(
        options.reduction,  # type: ignore[arg-type]
        options.multi_label_weight,
        options.match,
        options.precision == "bf16",  # auto is found out before the first step (training.precision)
        options.accumulate,
    )
    batches = _batch_options(config, model.config, device)
    calm = replace(batches, augment="none", workers=0, pin=False)
    return Run(
        config=config,
        folder=folder,
        data=data,
        model=model,
        optimiser=optimiser,
        buffer=GradientBuffer(model, scalars=3),
        options=loss_options,
        maker=BatchMaker(batches),
        validation=Validation(
            every_of(options.validate), held, options.reader, BatchMaker(calm), loss_options, benchmarks
        ),
        samples=_samples(config, data, model.config),
        progress=progress,
        remote=remote,
    )


def _held_out(config: CocuConfig, data: TrainingSet, found: str | None) -> int:
    """Row groups not to train on; a training that goes on keeps as many as it had, where the option leaves it open."""
    held = groups_held_out(config.train.held_out, len(data.groups))
    if config.train.held_out != "auto" or distributed.elastic():  # there a process may join later, alone
        return held
    if found is not None:
        with opened(found, "train.resume", "checkpoint") as path:
            held = held_before(path, held)
    return int(distributed.broadcast(held))


def _model(config: CocuConfig) -> GroupViT:
    wanted = GroupViTConfig.preset(config.train.model, **model_changes(config.train.model_options))
    if not config.train.init:
        return GroupViT(wanted)
    with opened(config.train.init, "train.init", "weight file") as path:
        model, _ = load_model(path)
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
    cards, number = torch.cuda.device_count(), distributed.local_rank()
    if distributed.local_size() > cards:
        raise UserError(
            f"{distributed.local_size()} processes on this host have {cards} GPUs (CUDA_VISIBLE_DEVICES counts); start "
            f"at most {cards} here, or write train.device=cpu"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _cores() -> int:
    """This process' share of the cores that the container, or else the host, has."""
    return max(1, cores() // distributed.local_size())


def _batch_options(config: CocuConfig, sizes: GroupViTConfig, device: torch.device) -> BatchOptions:
    options = config.train
    workers = options.workers
    if workers < 0:  # on a GPU the cores have nothing else to do; on a CPU the step itself needs them
        workers = max(1, _cores() - 1) if device.type == "cuda" else 1
    return BatchOptions(
        image_size=sizes.image_size,
        draws=Draws(
            options.sampling,
            options.prompts,
            options.temperature,
            options.seed,
            options.negatives,
            options.known,
        ),
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
    count = config.train.pictures
    if count <= 0:
        return torch.empty(0)
    table = next(read_groups("arrow", data.groups[:1], COLUMNS)).slice(0, count)
    options = BatchOptions(sizes.image_size, Draws("none"), augment="none", bad_images="replace")
    with BatchMaker(options) as maker:
        return next(maker.batches([table], 0)).images


def state_tensors(model: GroupViT, optimiser: torch.optim.Optimizer) -> list[torch.Tensor]:
    """All tensors that must be equal on all ranks."""
    states = [tensor for state in optimiser.state.values() for tensor in state.values()]
    return [*model.state_dict().values(), *states]
