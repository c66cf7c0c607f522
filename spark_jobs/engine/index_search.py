"""How the index is searched for L neighbours: tuned when it is first asked for, and kept beside the index."""

from __future__ import annotations

import json
from dataclasses import asdict

from pyspark.sql import SparkSession

from configs.schema import CocuConfig
from curation.index import SearchQuality, SearchTarget, tune
from spark_jobs.engine.index_cache import local_index
from spark_jobs.engine.waves import map_units
from storage.addresses import join, resolve
from storage.tables import Manifest
from storage.units import Unit

__all__ = ["search_quality", "search_target"]


def search_target(config: CocuConfig) -> SearchTarget:
    """What a configuration asks of the search."""
    options = config.index
    return SearchTarget(
        config.archives.searched, options.nprobe, options.target_recall, options.recall_queries
    )


def search_quality(session: SparkSession, config: CocuConfig, index: Manifest) -> SearchQuality:
    """The number of lists to visit and its recall: from the record beside the index, or tuned in one task.

    Asking for other neighbours, or another recall, therefore costs a measurement and no new index. The record is
    ``search-....json`` in the index' folder and goes when that goes.
    """
    target = search_target(config)
    folder = index.extra["folder"]
    filesystem, path = resolve(join(config.workspace, "index", folder, f"{target.name}.json"))
    if filesystem.get_file_info(path).is_file:
        with filesystem.open_input_stream(path) as stream:
            return SearchQuality(**json.loads(stream.read()))
    place = (config.workspace, folder, index.recipe)

    def work(_unit: Unit) -> str:
        return json.dumps(asdict(tune(local_index(*place), target)))

    (record,) = map_units(session, [Unit("tune", 0)], work)
    with filesystem.open_output_stream(path) as stream:
        stream.write(record)
    return SearchQuality(**json.loads(record))
