"""What a Python worker of Spark does between two tasks, and need not."""

from __future__ import annotations

import gc
import sys
import zipimport

__all__ = ["forget_zip_importers", "freeze_modules", "ready_for_next_task"]

_frozen_modules = 0


def ready_for_next_task() -> None:
    """The last thing a task does in its worker, whatever it did before."""
    forget_zip_importers()
    freeze_modules()


def freeze_modules() -> bool:
    """Where modules were imported since the last call: what is alive is looked through by no garbage collection again.

    PySpark collects garbage after every task. The half million objects that torch and open_clip bring along, which stay
    as long as the worker, are then looked through each time: 0.3 s of a small task. What is garbage already is collected
    first, and what tasks leave behind later still is; a task that imports nothing freezes nothing.

    Returns:
        Whether there were new modules.
    """
    global _frozen_modules
    if len(sys.modules) == _frozen_modules:
        return False
    _frozen_modules = len(sys.modules)
    gc.collect()
    gc.freeze()
    return True


def forget_zip_importers() -> int:
    """Drop the finders of zip archives from Python's cache of finders; returns how many.

    PySpark calls ``importlib.invalidate_caches()`` before every task, in case files were added. In Python 3.11 each
    finder of a zip, one a package inside (pyspark.zip alone has some twenty), then reads the archive's whole
    directory again: most of the cost of a small task. A finder that is not there is made anew by the next import
    that needs it, from ``zipimport``'s own cache of directories, at no cost; archives that are added later are
    found as before. What is gone is that a zip that somebody replaces under a running worker is noticed, which is
    no loss: modules would come from two versions.
    """
    names = [
        name
        for name, finder in list(sys.path_importer_cache.items())
        if isinstance(finder, zipimport.zipimporter)
    ]
    for name in names:
        sys.path_importer_cache.pop(name, None)
    return len(names)
