"""What the extra ``train`` alone brings. Tests that need it are skipped where it is not installed (``make test-modern``)."""

from __future__ import annotations

import importlib.util

import pytest


def installed(package: str) -> bool:
    """Whether it is there; one that is there and does not load fails its tests."""
    return importlib.util.find_spec(package) is not None


def need(package: str) -> None:
    """Skip the running test where the package is not installed."""
    if not installed(package):
        pytest.skip(_reason(package))


def needs(package: str) -> pytest.MarkDecorator:
    """The same as a mark."""
    return pytest.mark.skipif(not installed(package), reason=_reason(package))


def _reason(package: str) -> str:
    return f"{package} is not installed here: the extra 'train' is not"
