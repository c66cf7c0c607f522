"""What the matrix products of a step take by themselves: no implementation that uses them can be faster.

A step's products (linear layers, attention, convolutions; forward and backward) are noted as PyTorch calls them and
then run alone, shape after shape, on the same layouts and dtypes, the operands in cache where they fit. Everything else
of a step (norms, activations, softmax, copies, the optimiser) comes on top.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

__all__ = ["seconds_of_products"]

_PRODUCTS = (
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "convolution",
    "convolution_backward",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
)


class _Noted(TorchDispatchMode):
    """Counts calls by function, shapes, strides, dtypes and other arguments; keeps the arguments of one of each."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.calls: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in _PRODUCTS:
            described = tree_map(_described, (args, kwargs or {}))
            name = f"{func} {described}"
            self.counts[name] += 1
            self.calls.setdefault(name, (func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def _described(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.stride(), value.dtype)
    return value


def seconds_of_products(step: Callable[[], object], least: float = 0.05) -> float:
    """Seconds of all products of a step, each the least of repeated calls with the step's own operands.

    Args:
        step: forward and backward, on a CPU.
        least: seconds for which a shape is repeated.
    """
    with _Noted() as noted:
        step()
    total = 0.0
    for name, (func, args, kwargs) in noted.calls.items():
        best, spent = float("inf"), 0.0
        with torch.no_grad():
            func(*args, **kwargs)
            while spent < least:
                start = time.perf_counter()
                func(*args, **kwargs)
                taken = time.perf_counter() - start
                best, spent = min(best, taken), spent + taken
        total += best * noted.counts[name]
    return total
