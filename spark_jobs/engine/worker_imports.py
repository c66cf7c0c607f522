"""What a Python worker of Spark does between two tasks, and need not."""

from __future__ import annotations

import sys
import zipimport

__all__ = ["forget_zip_importers"]


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
