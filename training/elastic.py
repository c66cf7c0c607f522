"""Horovod Elastic: processes come and go, and the others go on from the last commit.

Only imported under ``horovodrun --min-np``; so Horovod is there.
"""

from __future__ import annotations

from typing import Any

import torch
from horovod.common.elastic import ObjectState
from horovod.torch import broadcast_object, rank
from horovod.torch.elastic import run as horovod_elastic_run

from training import distributed
from training.loop import Pending, Run, run_epochs
from training.progress import Progress

__all__ = ["run_elastic"]


class _Committed(ObjectState):
    """The last commit in memory: copies of all tensors, and the progress.

    Horovod's own TorchState makes new deep copies at each commit and rebuilds the optimiser's state; these
    tensors stay where they are, as the gradient buffer and the fused optimiser expect.
    """

    def __init__(self, tensors: list[torch.Tensor], progress: dict[str, Any]) -> None:
        self._live = tensors
        self._copies = [tensor.clone() for tensor in tensors]
        super().__init__(bcast_object=broadcast_object, get_rank=rank, progress=progress)

    def save(self) -> None:
        for copy, tensor in zip(self._copies, self._live, strict=True):
            copy.copy_(tensor)
        super().save()

    @torch.no_grad()
    def restore(self) -> None:
        for copy, tensor in zip(self._copies, self._live, strict=True):
            tensor.copy_(copy)
        super().restore()

    def sync(self) -> None:
        distributed.broadcast_tensors(self._live)
        super().sync()
        self.save()


def run_elastic(run: Run, tensors: list[torch.Tensor]) -> None:
    """Train to the last epoch while processes come and go.

    Args:
        tensors: all that must be equal on all ranks; a process that joins gets rank 0's.
    """
    state = _Committed(tensors, run.progress.to_dict())

    def commit() -> None:
        state.progress = run.progress.to_dict()
        state.commit()

    @horovod_elastic_run
    def go(state: _Committed) -> None:
        run.progress = Progress.from_dict(state.progress)
        run.pending = Pending()
        print(
            f"rank {distributed.rank()} of {distributed.size()}: training from step {run.progress.global_step:,}",
            flush=True,
        )
        run_epochs(run, commit)

    go(state)
