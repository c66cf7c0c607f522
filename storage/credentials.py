"""Whether a host can say who it is to a store, as far as that can be seen without asking the store."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["without_credentials"]

# What the AWS SDK looks at, before it asks the machine's role.
_AWS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_HINT = (
    "; this process has no AWS_ACCESS_KEY_ID and no ~/.aws/credentials, and Spark hands on none of the driver's: "
    "see docs/clusters.md, Object stores"
)


def without_credentials(address: str) -> str:
    """What to add to the error of a store that refuses: that there are no credentials here; else nothing."""
    if address.partition("://")[0] not in ("s3", "s3a", "s3n") or any(os.environ.get(name) for name in _AWS):
        return ""
    shared = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
    return "" if Path(shared).expanduser().is_file() else _HINT
