"""What ended a Spark job, as the one sentence of the mistake that a task met."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

from configs.errors import UserError

__all__ = ["ExecutorFault", "as_user_errors", "translated"]


class ExecutorFault(UserError):
    """An executor that can do no unit: without the driver's packages, code or Python, or without room for Spark."""


_USER_ERROR = re.compile(r"(?:configs\.errors\.)?UserError: (.+)")
_EXECUTOR_FAULT = re.compile(r"ExecutorFault: (.+)")
_DISK_ERRORS = (
    errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG,
)  # fmt: skip
_DISK_ERROR = re.compile(
    rf"(?:OS|Permission|NotADirectory|IsADirectory|FileExists)Error: (\[Errno (?:{'|'.join(map(str, _DISK_ERRORS))})\][^\n]*)"
)
_STORE_ERROR = re.compile(r"([^\n]*AWS Error (?:ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID)[^\n]*)")
_SPARK_DISK_ERROR = re.compile(r"java\.io\.IOException: (No space left on device|Read-only file system)")
_NO_MODULE = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
_NO_PYTHON = re.compile(r'Cannot run program "([^"]+)"')


@contextlib.contextmanager
def as_user_errors() -> Iterator[None]:
    """Around a whole job: what ends it is the user's mistake where it is one, whoever met it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        found = translated(error)
        if found is error:
            raise
        raise found from error


def translated(error: BaseException) -> BaseException:
    """The user's mistake that a task met, if that is what ended the Spark job."""
    text = str(error)
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return UserError(
            f"cannot write: {' '.join(text.split())}; mend the rights or the path, then run again"
        )
    if found := _EXECUTOR_FAULT.search(text):
        return ExecutorFault(found.group(1).strip())
    if found := _USER_ERROR.search(text):
        return UserError(found.group(1).strip())
    if found := _DISK_ERROR.search(text):
        return UserError(
            f"a task could not write: {found.group(1).strip()}; free space or mend the rights, then run again"
        )
    if found := _STORE_ERROR.search(text):
        return UserError(
            f"the store refused: {found.group(1).strip()[:300]}; see that bucket and credentials are right on driver "
            f"and executors (docs/clusters.md, Object stores)"
        )
    if found := _SPARK_DISK_ERROR.search(text):
        return ExecutorFault(
            f"Spark could not write to spark.local.dir: {found.group(1)}; free space there or name another "
            f"disk, then run again"
        )
    if found := _NO_MODULE.search(text):
        return ExecutorFault(
            f"an executor has no Python module '{found.group(1)}'; ship environment and code: make package, "
            f"then spark-submit --archives dist/environment.tar.gz#environment --py-files dist/cocu.zip"
        )
    if found := _NO_PYTHON.search(text):
        return ExecutorFault(
            f"an executor cannot start {found.group(1)}; with --archives dist/environment.tar.gz#environment "
            f"set spark.pyspark.python=./environment/bin/python"
        )
    return error
