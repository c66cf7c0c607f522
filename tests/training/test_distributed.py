from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from configs.errors import UserError
from training import build, distributed


def _build(**has: bool) -> SimpleNamespace:
    """What a build of Horovod says of itself."""
    names = ("nccl_built", "cuda_built", "rocm_built")
    return SimpleNamespace(**{name: partial(has.get, name, False) for name in names})


class _Elsewhere(torch.Tensor):
    """A tensor that claims to lie on a GPU, where there is none."""

    @property
    def device(self):
        return torch.device("cuda", 0)

    def cpu(self):
        return self.as_subclass(torch.Tensor).clone()


def test_builds_with_gpu_operations_are_known():
    assert not distributed.takes_gpu_tensors(_build())
    for name in ("nccl_built", "cuda_built", "rocm_built"):
        assert distributed.takes_gpu_tensors(_build(**{name: True}))


@pytest.mark.parametrize("nccl", [False, True])
def test_what_horovod_cannot_exchange_on_a_gpu_goes_through_the_host(monkeypatch, nccl):
    monkeypatch.setattr(distributed, "_HOROVOD", _build(nccl_built=nccl))
    ours = torch.arange(6.0).reshape(2, 3).as_subclass(_Elsewhere)
    seen = []

    def double(here):
        seen.extend(tensor.data_ptr() for tensor in here)
        for tensor in here:
            tensor.mul_(2)

    distributed.exchange_([ours], double)
    assert ours.as_subclass(torch.Tensor).tolist() == [[0, 2, 4], [6, 8, 10]]
    assert (seen == [ours.data_ptr()]) == nccl


def test_tensors_of_the_host_are_exchanged_where_they_are(monkeypatch):
    monkeypatch.setattr(distributed, "_HOROVOD", _build())
    ours, seen = torch.ones(3), []
    distributed.exchange_([ours], lambda here: seen.extend(tensor.data_ptr() for tensor in here))
    assert seen == [ours.data_ptr()]


@pytest.mark.parametrize(
    ("processes", "cards", "says"), [(4, 2, "4 processes on this host have 2 GPUs"), (2, 2, "")]
)
def test_more_processes_on_a_host_than_it_has_gpus_are_refused(monkeypatch, processes, cards, says):
    """A host with GPUs as torch and Horovod tell of it; there is none here."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(
        distributed, "_HOROVOD", SimpleNamespace(local_size=lambda: processes, local_rank=lambda: 1)
    )
    for wanted in ("auto", "cuda"):
        if says:
            with pytest.raises(UserError, match=f"{says}.* write train.device=cpu"):
                build._device(wanted)
        else:
            assert build._device(wanted) == torch.device("cuda", 1)
    assert chosen == ([] if says else [1, 1])
