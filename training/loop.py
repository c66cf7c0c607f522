"""The training loop: batches in, steps, what is logged and kept.

Nothing in a step waits for the GPU: losses, norms and the flags of skipped steps stay on the device and are read
once every ``log_steps``. A step whose loss or gradient is no number changes neither weights nor statistics: the
fused optimiser skips it by its ``found_inf`` flag, which every rank sets alike as it comes from the averaged sums.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from configs.schema import CocuConfig
from models.groupvit import GroupViT
from training import distributed
from training.checkpoints import publish, recorded, write_checkpoint
from training.feed.batches import Batch, BatchMaker
from training.feed.plan import EpochPlan
from training.feed.stream import rank_tables
from training.feed.training_set import TrainingSet
from training.gradients import GradientBuffer
from training.pictures import grouping_picture
from training.precision import choose_precision
from training.progress import Progress
from training.recipe import learning_rate
from training.remote_output import RemoteOutput
from training.skipped_steps import judge_steps
from training.step import LossOptions, accumulate_gradients
from training.telemetry import HISTORY, Telemetry
from training.transfer import to_device
from training.validation.signs import groups_used, signs
from training.validation.validate import Validation, history_entry

__all__ = ["Run", "run_epochs"]


_NO_MEASURE = (
    "nothing says how good the model becomes, so that best.pt is not written; write train.held_out=0.05, or "
    "train.validate.benchmark and train.validate.data"
)


@dataclass
class Pending:
    """What steps since the last line of the log left on the device."""

    values: list[torch.Tensor] = field(default_factory=list)
    """each float32 (5,): three losses, gradient norm, whether the step was skipped"""
    suspects: list[torch.Tensor] = field(default_factory=list)
    keys: list[list[str]] = field(default_factory=list)
    rows: int = 0
    waited: float = 0.0


@dataclass
class Run:
    """Everything a training process holds."""

    config: CocuConfig
    folder: Path
    data: TrainingSet
    model: GroupViT
    optimiser: torch.optim.Optimizer
    buffer: GradientBuffer
    options: LossOptions
    maker: BatchMaker
    samples: torch.Tensor
    """uint8 (n, H, W, 3): images whose grouping maps are drawn"""
    progress: Progress
    validation: Validation
    remote: RemoteOutput | None = None
    """where ``folder`` belongs, if that is no folder of this machine"""
    telemetry: Telemetry | None = None
    pending: Pending = field(default_factory=Pending)

    @property
    def device(self) -> torch.device:
        """Of the model."""
        return self.buffer.gradients.device


def run_epochs(run: Run, commit: Callable[[], None] | None = None) -> None:
    """Train from ``run.progress`` to the last epoch.

    Args:
        commit: elastic training's; called every ``commit_steps``.

    Raises:
        UserError: steps without a number, images or row groups that cannot be read (see the options).
    """
    options = run.config.train
    if distributed.rank() == 0 and run.telemetry is None:
        if run.remote is not None:
            run.remote.fetch(HISTORY)  # it is added to
        run.telemetry = Telemetry(run.folder, options.epochs * run.data.rows)
        if not run.validation.measures:
            run.telemetry.say([_NO_MEASURE])
    run.model.train()
    _settle_precision(run)
    while run.progress.epoch < options.epochs:
        run.progress.settle(distributed.size(), options.batch_size)
        plan = EpochPlan(
            run.data.group_rows, options.seed, run.progress.epoch, distributed.size(), options.batch_size,
            options.shuffle_groups, tuple(run.progress.stretches),
        )  # fmt: skip
        _run_epoch(run, plan, commit)
        _finish_epoch(run, plan)
        if commit is not None:
            commit()


def _settle_precision(run: Run) -> None:
    """Of ``train.precision``: what is said there, or what was found by this training, or finds itself now."""
    options, progress = run.config.train, run.progress
    if options.precision != "auto" or not progress.precision or run.device.type == "cuda":
        if progress.epoch >= options.epochs:
            return
        prompts = 0 if options.sampling == "none" else options.prompts
        progress.precision = choose_precision(
            options.precision, run.model, run.buffer, run.options, options.batch_size, prompts
        )
    run.options = replace(run.options, bf16=progress.precision == "bf16")
    run.validation.options = run.options


def _run_epoch(run: Run, plan: EpochPlan, commit: Callable[[], None] | None) -> None:
    options, progress = run.config.train, run.progress
    done = run.data.rows - plan.left_out - int(plan.counts[progress.steps :].sum())
    with contextlib.closing(_batches(run, plan)) as batches:
        for step in range(progress.steps, plan.steps):
            asked = time.monotonic()
            batch = next(batches)
            run.pending.waited += time.monotonic() - asked
            counts = plan.counts[step]
            rate = learning_rate(
                options, options.batch_size * plan.size, progress.epoch + done / run.data.rows
            )
            _step(run, batch, counts.tolist(), rate, step, plan)
            done += int(counts.sum())
            progress.rows += int(counts.sum())
            progress.steps, progress.global_step = step + 1, progress.global_step + 1
            _housekeeping(run, plan, rate, done, commit)


def _batches(run: Run, plan: EpochPlan) -> Iterator[Batch]:
    tables = rank_tables(run.data, plan, distributed.rank(), run.config.train.reader, skip=run.progress.steps)
    return run.maker.batches(tables, plan.epoch)


def _housekeeping(
    run: Run, plan: EpochPlan, rate: float, done: int, commit: Callable[[], None] | None
) -> None:
    options, step = run.config.train, run.progress.global_step
    saving = step % options.save_steps == 0
    committing = commit is not None and step % options.commit_steps == 0
    validating = run.validation.due_after_step(step)
    if step % options.log_steps == 0 or saving or committing or validating:
        _read_pending(run, rate, run.progress.epoch + done / run.data.rows)
    if saving or validating:
        best = validating and _validate(run, run.progress.epoch + done / run.data.rows)
        save(run, best)
    if committing and commit is not None:
        commit()


def _finish_epoch(run: Run, plan: EpochPlan) -> None:
    progress = run.progress
    _read_pending(run, run.optimiser.param_groups[0]["lr"], progress.epoch + 1.0)
    progress.left_out += plan.left_out
    loss = progress.end_epoch()
    epochs = run.config.train.epochs
    if run.telemetry is not None:
        note = f", {plan.left_out} rows left out" if plan.left_out else ""
        print(f"epoch {progress.epoch} of {epochs} done: mean loss {loss:.4f}{note}", flush=True)
        run.telemetry.writer.add_scalar("epoch/loss", loss, progress.global_step)
        run.telemetry.epoch(
            {
                "epoch": progress.epoch, "epochs": epochs, "loss": round(loss, 6),
                "skipped": progress.skipped, "bad_images": progress.bad_images,
            },
            progress.rows,
        )  # fmt: skip
    best = False
    if run.validation.due_after_epoch(progress.epoch, epochs) and progress.validated != progress.global_step:
        best = _validate(run, float(progress.epoch))
    elif run.telemetry is not None:
        run.telemetry.say(_signs(run, []))
    save(run, best)
    if run.telemetry is not None and len(run.samples):
        picture = grouping_picture(run.model, run.samples)
        run.telemetry.picture(f"epoch-{progress.epoch:04d}", picture, progress.global_step)


def _validate(run: Run, epoch: float) -> bool:
    """Measure the model, on all ranks; whether it is the best so far."""
    found, progress = run.validation.run(run.model), run.progress
    best = progress.validate(found.measure, found.value, found.higher_is_better)
    if run.telemetry is not None:
        said = _signs(run, progress.values, found.higher_is_better)
        if found.unreadable:
            said.append(
                f"validation: {len(found.unreadable)} files cannot be read; the first: {found.unreadable[0]}"
            )
        entry = history_entry(found, progress.global_step, epoch, said)
        run.telemetry.validation(entry, found.measure, found.value, best, found.seconds)
        run.telemetry.since += found.seconds
        run.telemetry.say(said)
    return best


def _signs(run: Run, values: list[float], higher_is_better: bool = True) -> list[str]:
    """What looks wrong; looked for on rank 0."""
    used = groups_used(run.model, run.samples) if len(run.samples) else ()
    scales = run.model.scales()
    told = {"captions": float(scales.caption.detach()), "prompts": float(scales.prompts.detach())}
    return signs(used, told, values, higher_is_better)


def _step(run: Run, batch: Batch, counts: list[int], rate: float, step: int, plan: EpochPlan) -> None:
    """Forward, backward, exchange, update."""
    options = run.config.train
    statistics = [(kept, kept.clone()) for kept in run.model.buffers()]
    generator = _generator(run, plan, step)
    run.buffer.zero()
    losses, sound = accumulate_gradients(
        run.model, to_device(batch, run.device), counts, run.options, generator, run.buffer
    )
    run.buffer.scalars.copy_(losses)
    run.buffer.average()
    norm = run.buffer.gradients.norm()
    skip = ~(norm.isfinite() & run.buffer.scalars.isfinite().all())
    run.buffer.clip(norm, options.clip_norm)
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    run.optimiser.found_inf = skip.float()  # type: ignore[attr-defined]
    run.optimiser.step()
    run.model.clamp_scales()
    with torch.no_grad():
        for now, earlier in statistics:
            now.copy_(torch.where(skip, earlier, now))
    pending = run.pending
    pending.values.append(torch.cat([run.buffer.scalars, torch.stack([norm, skip.float()])]))
    pending.suspects.append(~sound)
    pending.keys.append(batch.keys)
    pending.rows += sum(counts)
    run.progress.bad_images += len(batch.bad)


def _generator(run: Run, plan: EpochPlan, step: int) -> torch.Generator:
    """Noise of a step: a function of seed, place in the training and rank, so that none has to be stored."""
    entropy = [run.config.train.seed, plan.epoch, len(plan.done), step, distributed.rank()]
    seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]) >> 1
    return torch.Generator(run.device).manual_seed(seed)


def _read_pending(run: Run, rate: float, epoch: float) -> None:
    """Fetch what the last steps left on the device; log it and judge it."""
    pending, run.pending = run.pending, Pending()
    if not pending.values:
        return
    values = torch.stack(pending.values).cpu().numpy().astype(np.float64)
    good = values[values[:, 4] == 0]
    progress = run.progress
    progress.loss_sum += float(good[:, 0].sum())
    progress.loss_steps += len(good)
    judge_steps(run.folder, run.config.train, progress, values[:, 4] != 0, pending.suspects, pending.keys)
    if run.telemetry is None or not len(good):
        return
    scales = run.model.scales()
    mean = good.mean(axis=0)
    run.telemetry.step(
        {
            "step": progress.global_step, "epoch": round(epoch, 4), "loss": round(float(mean[0]), 6),
            "caption_loss": round(float(mean[1]), 6), "prompt_loss": round(float(mean[2]), 6),
            "grad_norm": round(float(mean[3]), 6), "lr": rate, "skipped": progress.skipped,
            "caption_scale": round(float(scales.caption.detach()), 4),
            "prompt_scale": round(float(scales.prompts.detach()), 4),
        },
        pending.rows,
        progress.rows,
        pending.waited,
    )  # fmt: skip


def save(run: Run, best: bool = False) -> None:
    """Write a checkpoint (rank 0), as ``best.pt`` too if the validation at this step is the best so far."""
    if distributed.rank() != 0:
        return
    path = write_checkpoint(
        run.folder,
        run.progress.global_step,
        run.model,
        optimiser=run.optimiser.state_dict(),
        progress=run.progress.to_dict(),
        training_set=run.data.recipe,
        configuration=recorded(run.config, len(run.validation.held.groups)),
    )
    publish(path, best, keep=run.config.train.keep)
    if run.remote is not None:
        run.remote.try_to_send(run.config.train.keep)
