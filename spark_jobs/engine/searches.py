"""How an index is searched for more neighbours than it was tuned for: measured once and noted beside it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from curation.index import OpenIndex, SearchQuality
from curation.index.search import tune
from storage import tables
from storage.addresses import join, resolve

__all__ = ["tuned_search"]


def tuned_search(
    index: OpenIndex, place: tuple[str, str, str], neighbours: int, settings: dict[str, Any]
) -> SearchQuality | None:
    """What to search with where index.json does not say; None where it does.

    An index that was tuned for as many neighbours or more, that is searched exactly, or whose nprobe the user chose
    is searched as it is. For another L the lists to visit are chosen as when it was built, and kept in
    ``index/search-<recipe>-<L>.json`` for the next run: the index itself stays.

    Args:
        place: workspace, folder and recipe of the index. settings: of its manifest.
    """
    built = index.metadata["search"]
    if (
        index.kind == "flat"
        or index.device == "gpu"
        or built["neighbours"] >= neighbours
        or settings["nprobe"]
    ):
        return None
    workspace, _, recipe = place
    address = join(workspace, "index", f"search-{recipe}-{neighbours}.json")
    filesystem, path = resolve(address)
    if filesystem.get_file_info(path).is_file:
        with filesystem.open_input_stream(path) as stream:
            return SearchQuality(**json.loads(stream.read()))
    found = tune(index, neighbours, 0, settings["target_recall"], built["queries"])
    tables.write_atomically(address, json.dumps(asdict(found), indent=1).encode())
    return found
