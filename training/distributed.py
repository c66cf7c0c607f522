"""The one module that talks to Horovod; without it (one process) everything here is the identity.

Kept small on purpose: Horovod's last release is of 2023, and whoever replaces it replaces this file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from configs.errors import UserError

__all__ = [
    "average_",
    "broadcast",
    "finish",
    "gather",
    "launched",
    "rank",
    "rows_of_all",
    "size",
    "start",
    "start_average",
    "sum_",
]

_HOROVOD: Any = None


def launched() -> bool:
    """Whether horovodrun or horovod.spark started this process."""
    return "HOROVOD_RANK" in os.environ or "HOROVOD_ELASTIC" in os.environ


def start() -> None:
    """Join the other processes, if this one was launched beside some.

    Raises:
        UserError: launched by horovodrun, and Horovod is not installed here.
    """
    global _HOROVOD
    if _HOROVOD is not None or not launched():
        return
    try:
        import horovod.torch as horovod
    except ImportError as error:
        raise UserError(
            f"horovodrun started this process and Horovod's torch part does not load ({error}); run make setup here"
        ) from error
    horovod.init()
    _HOROVOD = horovod


def rank() -> int:
    """This process among all, from 0."""
    return _HOROVOD.rank() if _HOROVOD is not None else 0


def local_rank() -> int:
    """This process among those of its host, from 0."""
    return _HOROVOD.local_rank() if _HOROVOD is not None else 0


def local_size() -> int:
    """Processes on this host."""
    return _HOROVOD.local_size() if _HOROVOD is not None else 1


def size() -> int:
    """Number of processes."""
    return _HOROVOD.size() if _HOROVOD is not None else 1


def elastic() -> bool:
    """Whether horovodrun may add and remove processes while we train."""
    return _HOROVOD is not None and os.environ.get("HOROVOD_ELASTIC") == "1"


def takes_gpu_tensors(horovod: Any) -> bool:
    """Whether this build of Horovod exchanges what lies on a GPU; one without GPU operations throws."""
    return bool(horovod.nccl_built() or horovod.cuda_built() or horovod.rocm_built())


def exchange_(tensors: Sequence[torch.Tensor], exchange: Callable[[Sequence[torch.Tensor]], None]) -> None:
    """Let Horovod change tensors in place, by way of the host's memory where it cannot on the GPU."""
    if all(tensor.device.type == "cpu" for tensor in tensors) or takes_gpu_tensors(_HOROVOD):
        exchange(tensors)
        return
    copies = [tensor.detach().cpu() for tensor in tensors]
    exchange(copies)
    with torch.no_grad():
        for tensor, copy in zip(tensors, copies, strict=True):
            tensor.copy_(copy)


def broadcast_tensors(tensors: Sequence[torch.Tensor]) -> None:
    """Rank 0's values into the tensors of every rank."""

    def exchange(here: Sequence[torch.Tensor]) -> None:
        waiting = [
            _HOROVOD.broadcast_async_(tensor, 0, f"state.{place}") for place, tensor in enumerate(here)
        ]
        for handle in waiting:
            _HOROVOD.synchronize(handle)

    if size() > 1:
        exchange_(tensors, exchange)


def average_(tensor: torch.Tensor, name: str) -> None:
    """Replace ``tensor`` by its mean over all ranks."""
    if size() > 1:
        exchange_([tensor], lambda here: _HOROVOD.allreduce_(here[0], op=_HOROVOD.Average, name=name))


def sum_(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """``tensor`` summed over all ranks, in place and returned."""
    if size() > 1:
        exchange_([tensor], lambda here: _HOROVOD.allreduce_(here[0], op=_HOROVOD.Sum, name=name))
    return tensor


def broadcast(value: Any) -> Any:
    """Rank 0's Python value, on every rank."""
    return _HOROVOD.broadcast_object(value, root_rank=0) if size() > 1 else value


def start_average(tensor: torch.Tensor, name: str) -> Any:
    """Begin to replace ``tensor`` by its mean over all ranks; give what this returns to :func:`finish`."""
    if size() == 1:
        return None
    if tensor.device.type != "cpu" and not takes_gpu_tensors(_HOROVOD):
        average_(tensor, name)
        return None
    return _HOROVOD.allreduce_async_(tensor, op=_HOROVOD.Average, name=name)


def finish(handle: Any) -> None:
    """Wait for an exchange that :func:`start_average` began."""
    if handle is not None:
        _HOROVOD.synchronize(handle)


def rows_of_all(row: torch.Tensor, name: str) -> torch.Tensor:
    """(L,) of this rank -> (ranks, L), without gradient."""
    if size() == 1:
        return row[None]
    return _allgather(row[None], name)


def _allgather(rows: torch.Tensor, name: str) -> torch.Tensor:
    here = rows.contiguous() if takes_gpu_tensors(_HOROVOD) else rows.contiguous().cpu()
    return _HOROVOD.allgather(here, name=name).to(rows.device)


class _Gather(torch.autograd.Function):
    """Rows of all ranks; backward sums the ranks' gradients (Horovod's own allgather averages them).

    Features and numbers travel as bytes in one exchange.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, numbers: torch.Tensor, counts: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.first = sum(counts[: rank()])
        ctx.count = len(rows)
        parts = [_bytes(part) for part in (rows, numbers)]
        whole = _allgather(torch.cat(parts, dim=1), f"gather.{parts[0].shape[1]}.{parts[1].shape[1]}")
        features, others = whole.split([part.shape[1] for part in parts], dim=1)
        gathered = others.contiguous().view(numbers.dtype)
        ctx.mark_non_differentiable(gathered)
        return features.contiguous().view(rows.dtype), gathered

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, _: Any) -> tuple[torch.Tensor, None, None]:
        whole = gradient.contiguous().clone()
        sum_(whole, f"gather.backward.{gradient.shape[1]}")
        return whole[ctx.first : ctx.first + ctx.count], None, None


def _bytes(rows: torch.Tensor) -> torch.Tensor:
    """(b, n) -> uint8 (b, bytes)."""
    return rows.detach().contiguous().view(torch.uint8)


def gather(
    features: Sequence[torch.Tensor], numbers: torch.Tensor | None, counts: Sequence[int]
) -> tuple[list[torch.Tensor], torch.Tensor | None, int]:
    """Everything that a step needs of the other ranks, in one exchange.

    Args:
        features: floats (b, ...) each, of one type; differentiable, see :class:`_Gather` and ``models.losses``.
        numbers: int64 (b, n), or None.
        counts: rows of every rank.

    Returns:
        the same of all B rows in rank order, and the place of this rank's first row.
    """
    if size() == 1:
        return list(features), numbers, 0
    flat = [part.flatten(1) for part in features]
    sent = flat[0].new_empty(len(flat[0]), 0, dtype=torch.int64) if numbers is None else numbers
    whole, others = _Gather.apply(torch.cat(flat, dim=1), sent, tuple(counts))
    parts = whole.split([part.shape[1] for part in flat], dim=1)
    shaped = [part.unflatten(1, own.shape[1:]) for part, own in zip(parts, features, strict=True)]
    return shaped, None if numbers is None else others, sum(counts[: rank()])
