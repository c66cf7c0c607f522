"""A process of its own that prepares pictures: prints, for each file it is given, the bytes its peak grew by.

Run by test_memory.py: ``python -m tests.corpora.peak_memory MAX_PIXELS FILE ...``
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from configs.schema import IngestConfig
from corpora.images import prepare_image
from tests.corpora.ingest_inputs import jpeg

Result = TypeVar("Result")


def peak_growth(work: Callable[[], Result]) -> tuple[int, Result]:
    """Bytes by which the process' peak goes over what it holds now, and the result; the kernel's mark is reset."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _kilobytes("VmRSS")
    result = work()
    return (_kilobytes("VmHWM") - before) * 1024, result


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main(argv: list[str]) -> None:
    """Each file by itself."""
    config = IngestConfig(max_pixels=int(argv[0]), image_seconds=300)
    prepare_image(jpeg(), config)  # what is loaded once
    for name in argv[1:]:
        data = Path(name).read_bytes()
        peak, result = peak_growth(partial(prepare_image, data, config))
        said = f"{result.width}x{result.height}" if hasattr(result, "jpeg") else result.reason.value
        print(Path(name).name, peak, said, sep="\t", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
