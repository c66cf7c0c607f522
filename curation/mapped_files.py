"""Files of a folder that is described by a JSON file: their sizes and checksums, and arrays that are mapped."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import UserError
from configs.json_files import read_json

__all__ = ["check_file", "file_checksum", "file_facts", "open_array", "read_description"]


def read_description(root: Path, name: str, version: str, keys: Sequence[str], job: str) -> dict[str, Any]:
    """The JSON file that says what is in a folder.

    Args:
        root: the folder. name: of the file; its stem is what the folder is called in messages.
        version: of the format that is read; it stands under ``format``.
        keys: that must be there.
        job: makes such folders.

    Raises:
        UserError: it is not there, damaged, of another version, or lacks a key.
    """
    path, what = root / name, Path(name).stem
    if not path.is_file():
        raise UserError(f"{root} holds no {what} ({name} is missing); run {job} first")
    try:
        facts = read_json(path)
    except UserError as error:
        raise UserError(f"{error}; run {job} again") from None
    found = facts.get("format") if isinstance(facts, dict) else None
    if found is None:
        raise UserError(f"{path} is no description of {what} files; run {job} again")
    if found != version:
        raise UserError(f"{path} is of format {found!r} and this program reads {version!r}; run {job} again")
    if missing := [key for key in keys if key not in facts]:
        raise UserError(f"{path} lacks {', '.join(missing)}; run {job} again")
    return facts


def file_facts(path: Path) -> dict[str, int]:
    """What :func:`check_file` compares: size and CRC-32."""
    return {"bytes": path.stat().st_size, "crc32": file_checksum(path)}


def file_checksum(path: Path) -> int:
    """CRC-32 of a file: it finds what breaks on the way, not what is forged."""
    checksum = 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return checksum


def check_file(root: Path, name: str, facts: dict[str, int], full: bool) -> None:
    """Compare a file with what its folder's description says of it.

    Raises:
        UserError: it is missing, has another size or (``full``) another checksum.
    """
    path = root / name
    if not path.is_file():
        raise UserError(f"{path} is missing; copy the whole folder again or build it again")
    size = path.stat().st_size
    if size != facts["bytes"]:
        raise UserError(
            f"{path} has {size} bytes and its folder's description says {facts['bytes']}; "
            "copy the folder again or build it again"
        )
    if full and file_checksum(path) != facts["crc32"]:
        raise UserError(
            f"{path} has another checksum than its folder's description says; copy the folder again"
        )


def open_array(root: Path, name: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """Memory-map a .npy file and insist on its type and shape; objects (pickles) are refused."""
    path = root / name
    try:
        # Nothing can be mapped of an empty array.
        mode = "r" if np.prod(shape) else None
        array = np.load(path, mmap_mode=mode, allow_pickle=False)
    except ValueError as error:
        raise UserError(
            f"{path} is not a plain array of numbers ({error}); build its folder again"
        ) from error
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise UserError(
            f"{path} holds {array.dtype} {array.shape} where its folder's description says "
            f"{np.dtype(dtype)} {shape}; build the folder again"
        )
    return array
