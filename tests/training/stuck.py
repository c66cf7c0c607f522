"""Options with which a decoder hangs, on a machine of any speed."""

from __future__ import annotations

import time
from typing import Any

from training.feed.augment import AugmentOptions


class StuckOptions(AugmentOptions):
    """Whoever asks what kind of augmentation it is waits for ever; only a decoding process does."""

    def __getattribute__(self, name: str) -> Any:
        if name == "kind":
            time.sleep(3600)
        return super().__getattribute__(name)
