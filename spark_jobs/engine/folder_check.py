"""Whether a result that is a folder (the index, the probe) is the right one, and its files are there and whole."""

from __future__ import annotations

import json
import zlib

from configs.overwrite import must_rebuild
from configs.schema import CocuConfig
from storage.addresses import join, resolve
from storage.tables import Manifest

__all__ = ["find_damage", "is_done"]

_BLOCK = 8 << 20


def is_done(config: CocuConfig, found: Manifest | None, recipe: str) -> bool:
    """Whether nothing is to be done: what is there is of this recipe, not named by ``overwrite``, and whole.

    Files are read only if ``verify`` is set; what is damaged is told.
    """
    if found is None or found.recipe != recipe or must_rebuild(config.overwrite, found.table):
        return False
    fault = (
        find_damage(join(found.folder, found.extra["folder"]), f"{found.table}.json") if config.verify else ""
    )
    if fault:
        print(f"{found.job}: {fault}; {found.table} is built again", flush=True)
    elif config.verify:
        print(f"{found.job}: {found.table} is verified: all files are there and whole", flush=True)
    return not fault


def find_damage(address: str, description: str) -> str:
    """In words, which file of a folder is not what its description says (size and CRC-32); empty: none."""
    try:
        files = json.loads(_read(join(address, description)))["files"]
        for name, facts in files.items():
            size, checksum = _measure(join(address, name))
            if (size, checksum) != (facts["bytes"], facts["crc32"]):
                return f"{join(address, name)} is damaged"
    except FileNotFoundError as error:
        return f"a file of {address} is gone ({error})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{description} in {address} is damaged"
    return ""


def _read(address: str) -> bytes:
    filesystem, path = resolve(address)
    with filesystem.open_input_stream(path) as stream:
        return stream.read()


def _measure(address: str) -> tuple[int, int]:
    filesystem, path = resolve(address)
    size = checksum = 0
    with filesystem.open_input_stream(path) as stream:
        while block := stream.read(_BLOCK):
            size += len(block)
            checksum = zlib.crc32(block, checksum)
    return size, checksum
