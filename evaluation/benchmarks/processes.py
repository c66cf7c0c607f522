"""The same evaluation as several processes of one machine, or of several that torchrun started."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing

from configs.errors import UserError
from configs.processors import threads
from evaluation.benchmarks.runs import Job, run_job

__all__ = ["join_torchrun", "leave_torchrun", "run_processes"]


def join_torchrun() -> tuple[int, int]:
    """Rank and number of processes; joins the group where torchrun (or mmengine's launcher) made one."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count < 2 or "RANK" not in os.environ:
        return 0, 1
    rank = int(os.environ["RANK"])
    if not torch.distributed.is_initialized():
        _join(rank, count, "env://", int(os.environ.get("LOCAL_RANK", rank)))
    return rank, count


def leave_torchrun() -> None:
    """Leave the group that :func:`join_torchrun` joined, if any."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def run_processes(job: Job, count: int) -> list[dict[str, Any]]:
    """Results of ``count`` new processes, each with its share of the images and, in turn, a GPU if there are any.

    Raises:
        UserError: as raised in all of them.
        OSError: one of them could not write.
    """
    with tempfile.TemporaryDirectory(prefix="evaluation-") as folder:
        try:
            torch.multiprocessing.spawn(_process, args=(job, count, folder), nprocs=count)
        except torch.multiprocessing.ProcessRaisedException as error:
            # The others wait for the one that failed, and are ended; of its error only the text comes here.
            number = re.search(r"^OSError: \[Errno (\d+)\]", str(error), re.MULTILINE)
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        answer = json.loads((Path(folder) / "answer.json").read_text(encoding="utf-8"))
    if "error" in answer:
        raise UserError(answer["error"])
    return answer["results"]


def _process(rank: int, job: Job, count: int, folder: str) -> None:
    if not torch.cuda.is_available():
        torch.set_num_threads(threads(count))
    _join(rank, count, f"file://{folder}/rendezvous", rank)
    answer: dict[str, Any]
    try:
        answer = {"results": run_job(job)}
    except UserError as error:
        answer = {"error": str(error)}
    if rank == 0:
        (Path(folder) / "answer.json").write_text(json.dumps(answer), encoding="utf-8")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _join(rank: int, count: int, method: str, local_rank: int) -> None:
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
        # nccl refuses two processes on one GPU
        backend = "nccl" if count <= torch.cuda.device_count() else "gloo"
    torch.distributed.init_process_group(backend, init_method=method, rank=rank, world_size=count)
