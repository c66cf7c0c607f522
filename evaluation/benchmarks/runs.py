"""One benchmark after another through mmengine's Runner, in one process or as one of several."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import evaluation.benchmarks.mmseg_import

# isort: split
import torch
import torch.distributed
import torch.multiprocessing
from mmengine.runner import Runner
from mmseg.registry import DATASETS, MODELS

import evaluation.benchmarks.datasets
import evaluation.benchmarks.metric
import evaluation.benchmarks.segmentor  # noqa: F401  (registers itself)
from configs.errors import UserError
from evaluation.benchmarks.catalogue import Benchmark
from evaluation.benchmarks.hooks import PictureHook, ProgressHook
from evaluation.class_lists import check_class_names
from evaluation.class_names import prompt_names
from models.groupvit import GroupViT
from models.weights import load_model

__all__ = ["Job", "build_segmentor", "class_names", "dataset_config", "run_benchmark", "run_job"]

_META_KEYS = ("img_path", "ori_shape", "img_shape", "sample_idx", "unreadable")


@dataclass(frozen=True)
class Job:
    """What every process of an evaluation needs to know."""

    checkpoint: str
    benchmarks: tuple[Benchmark, ...]
    """With their real folders and final protocols."""
    out: Path
    max_windows: int | None = None
    batch: int = 1
    """Images read and encoded together."""
    workers: int = 0
    """Reader processes a rank."""
    precision: str = "fp32"
    """Or ``bf16``: the image encoder's matrix products."""
    limit: int | None = None
    pictures: int = 0


def run_job(job: Job) -> list[dict[str, Any]]:
    """Results of all benchmarks, the same in every process of a group."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, _ = load_model(job.checkpoint, device)
    return [run_benchmark(job, benchmark, model) for benchmark in job.benchmarks]


def class_names(benchmark: Benchmark) -> tuple[str, ...]:
    """The data set's classes, background included, as mmseg or the user lists them.

    Raises:
        UserError: two prompts are the same.
    """
    classes = tuple(_lazy_dataset(benchmark).metainfo["classes"])
    check_class_names(prompt_names(benchmark.name, classes), f"benchmark {benchmark.name}")
    return classes


@torch.no_grad()
def run_benchmark(job: Job, benchmark: Benchmark, model: GroupViT) -> dict[str, Any]:
    """One entry of results.json's ``benchmarks``; mIoU, accuracy and IoU in percent, NaN where undefined."""
    classes = class_names(benchmark)
    prompts = prompt_names(benchmark.name, classes)
    dtype = torch.bfloat16 if job.precision == "bf16" else None
    segmentor = build_segmentor(benchmark, prompts, model, job.max_windows, dtype)
    with _scratch(job.out) as scratch:
        runner = _runner(job, benchmark, segmentor, classes, scratch)
        start = time.perf_counter()
        found = {key.split("/")[-1]: value for key, value in runner.test().items()}
        seconds = time.perf_counter() - start
    return {
        "name": benchmark.name,
        "title": benchmark.title,
        **found,
        "images_of_split": benchmark.images,
        "seconds": seconds,
        "precision": job.precision,
        "prompts": prompts,
        "protocol": {**asdict(benchmark.protocol), "ignore_index": benchmark.ignore_index},
    }


def build_segmentor(
    benchmark: Benchmark,
    prompts: Sequence[str],
    model: GroupViT,
    max_windows: int | None = None,
    dtype: torch.dtype | None = None,
) -> torch.nn.Module:
    """The model as mmseg's test loop takes it; class texts are encoded here (``evaluation.benchmarks.segmentor``)."""
    return MODELS.build(
        {
            "type": "GroupViTSegmentor",
            "groupvit": model,
            "prompts": prompts,
            "protocol": benchmark.protocol,
            "max_windows": max_windows,
            "dtype": dtype,
        }
    )


def dataset_config(benchmark: Benchmark, classes: int, scratch: Path) -> dict[str, Any]:
    """mmengine config of a benchmark's data set with its pipeline; ``scratch`` receives its list of names."""
    return {**_with_list(benchmark, scratch), "test_mode": True, "pipeline": _pipeline(benchmark, classes)}


def _lazy_dataset(benchmark: Benchmark) -> Any:
    return DATASETS.build({**benchmark.dataset, "lazy_init": True, "pipeline": []})


def _runner(
    job: Job, benchmark: Benchmark, segmentor: torch.nn.Module, classes: Sequence[str], scratch: Path
) -> Runner:
    hooks: list[Any] = [ProgressHook(benchmark.title)]
    if job.pictures:
        folder = job.out / "pictures" / benchmark.name
        hooks.append(PictureHook(folder, job.pictures, classes))
    dataset = {
        **dataset_config(benchmark, len(classes), scratch),
        "indices": job.limit,
        # spares reader processes a copy of the list, and costs a second
        "serialize_data": job.workers > 0,
    }
    loader = {**benchmark.runtime["test_dataloader"], "batch_size": job.batch, "num_workers": job.workers}
    evaluator = {
        **benchmark.runtime["test_evaluator"],
        "ignore_index": benchmark.ignore_index,
        "collect_dir": str(scratch / "parts"),
    }
    return Runner(
        model=segmentor,
        work_dir=str(scratch),
        test_dataloader={**loader, "dataset": dataset},
        test_evaluator=evaluator,
        test_cfg=benchmark.runtime["test_cfg"],
        default_scope=benchmark.runtime["default_scope"],
        default_hooks=dict.fromkeys(("timer", "logger", "param_scheduler", "checkpoint", "runtime_info")),
        custom_hooks=hooks,
        # mmengine would otherwise force 'fork' on the whole process
        env_cfg={"mp_cfg": {"mp_start_method": torch.multiprocessing.get_start_method()}},
        log_level="WARNING",
        experiment_name=f"{benchmark.name}-{uuid.uuid4().hex}",
    )


def _with_list(benchmark: Benchmark, scratch: Path) -> dict[str, Any]:
    """mmseg takes the lines of a list as they are; it gets one of the names alone."""
    if benchmark.names is None:
        return benchmark.dataset
    listing = scratch / f"names-{os.getpid()}.txt"
    listing.write_text("".join(f"{name}\n" for name in benchmark.names), encoding="utf-8")
    return {**benchmark.dataset, "ann_file": str(listing.absolute())}


def _pipeline(benchmark: Benchmark, classes: int) -> list[dict[str, Any]]:
    """The image is resized, its mask stays at the original size, where the prediction is compared."""
    scale = (benchmark.protocol.long_side, benchmark.protocol.short_side)
    return [
        {"type": "LoadImage"},
        {"type": "Resize", "scale": scale, "keep_ratio": True},
        {
            "type": "LoadMask",
            "classes": classes,
            "ignore_index": benchmark.ignore_index,
            "wide": benchmark.wide_masks,
        },
        {"type": "PackSegInputs", "meta_keys": _META_KEYS},
    ]


_SHARED_SECONDS = 10.0
"""A network disk may tell of a new folder some seconds late."""


def _refuse_folders_of_ones_own(out: Path, folder: Path) -> None:
    """Parts of the counts travel through the folder, so that it has to be one for all hosts."""
    torch.distributed.barrier()
    limit = time.monotonic() + _SHARED_SECONDS
    while not folder.is_dir() and time.monotonic() < limit:
        time.sleep(0.2)
    seen: list[bool] = [False] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(seen, folder.is_dir())
    if not all(seen):
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(
            f"--out {out}: process {seen.index(False)} of {len(seen)} does not see what process 0 wrote there; with several "
            "hosts it must be a folder that all of them share, given by its whole path"
        )


@contextlib.contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A folder for mmengine's files, the same in all processes of a group, gone afterwards.

    Raises:
        UserError: (in all processes) one of them does not see what the first one writes to ``out``.
    """
    grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
    name = [f".scratch-{os.getpid()}-{uuid.uuid4().hex[:8]}"]
    if grouped:
        torch.distributed.broadcast_object_list(name, src=0)
    folder = out / name[0]
    if not grouped or torch.distributed.get_rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
    if grouped:
        _refuse_folders_of_ones_own(out, folder)
    try:
        yield folder
        if grouped:
            torch.distributed.barrier()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
