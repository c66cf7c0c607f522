"""What tests of whole jobs share: a small corpus, a standalone cluster of real processes, comparisons."""

from __future__ import annotations

from tests.harness.cluster import Worker, executors, python_workers, standalone_cluster
from tests.harness.comparison import (
    assert_same_tables,
    committed_units,
    duplicates,
    progress_of,
    stray_files,
    table_rows,
)
from tests.harness.corpus import WORDS, write_config, write_shards, write_tiny_clip
from tests.harness.processes import (
    ROOT,
    environment,
    free_port,
    kill_all,
    kill_tree,
    run,
    submit,
    tied,
    wait_for,
)

__all__ = [
    "ROOT",
    "WORDS",
    "Worker",
    "assert_same_tables",
    "committed_units",
    "duplicates",
    "environment",
    "executors",
    "free_port",
    "kill_all",
    "kill_tree",
    "progress_of",
    "python_workers",
    "run",
    "standalone_cluster",
    "stray_files",
    "submit",
    "table_rows",
    "tied",
    "wait_for",
    "write_config",
    "write_shards",
    "write_tiny_clip",
]
