"""What ended a Spark job, as the one sentence of the mistake that a task met."""

from __future__ import annotations

import re

from configs.errors import UserError

__all__ = ["translated"]

_USER_ERROR = re.compile(r"(?:configs\.errors\.)?UserError: (.+)")
# No space (28), read-only (30), quota (122), no right (13).
_DISK_ERROR = re.compile(r"(?:OSError|PermissionError): (\[Errno (?:28|30|122|13)\][^\n]*)")
_SPARK_DISK_ERROR = re.compile(r"java\.io\.IOException: (No space left on device|Read-only file system)")
_NO_MODULE = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
_NO_PYTHON = re.compile(r'Cannot run program "([^"]+)"')


def translated(error: BaseException) -> BaseException:
    """The user's mistake that a task met, if that is what ended the Spark job."""
    text = str(error)
    if found := _USER_ERROR.search(text):
        return UserError(found.group(1).strip())
    if found := _DISK_ERROR.search(text):
        return UserError(
            f"a task could not write: {found.group(1).strip()}; free space or mend the rights, then run again"
        )
    if found := _SPARK_DISK_ERROR.search(text):
        return UserError(
            f"Spark could not write to spark.local.dir: {found.group(1)}; free space there or name another "
            f"disk, then run again"
        )
    if found := _NO_MODULE.search(text):
        return UserError(
            f"an executor has no Python module '{found.group(1)}'; ship environment and code: make package, "
            f"then spark-submit --archives dist/environment.tar.gz#environment --py-files dist/cocu.zip"
        )
    if found := _NO_PYTHON.search(text):
        return UserError(
            f"an executor cannot start {found.group(1)}; with --archives dist/environment.tar.gz#environment "
            f"set spark.pyspark.python=./environment/bin/python"
        )
    return error
