"""What decides how rows of the training set become batches."""

from __future__ import annotations

import math
from dataclasses import dataclass

from configs.errors import UserError
from curation.sampling import MODES
from training.feed.augment import KINDS
from training.feed.texts import NEGATIVES, Draws

__all__ = ["BatchOptions", "check_options"]


@dataclass(frozen=True)
class BatchOptions:
    """How rows become batches; checked by :func:`check_options`.

    Attributes:
        image_size: side of the square images, pixels.
        draws: which prompts (``training.feed.texts``).
        seed: of augmentation.
        context_length: most tokens a text keeps.
        augment: recipe | light | none (``training.feed.augment``).
        workers: decoding processes; 0: decode in the calling thread.
        prefetch: batches prepared ahead of the one that is asked for.
        bad_images: stop | replace (grey, named in the batch's ``bad``).
        pin: put the images into pinned memory, for copies to a GPU beside its work.
    """

    image_size: int = 224
    draws: Draws = Draws()
    seed: int = 0
    context_length: int = 77
    augment: str = "recipe"
    workers: int = 0
    prefetch: int = 4
    bad_images: str = "stop"
    pin: bool = False


_OPTIONS = {
    "image_size": "train.model_options.image_size",
    "context_length": "train.model_options.context_length",
}


def check_options(options: BatchOptions) -> None:
    """Raises UserError for an option that cannot be."""
    draws = options.draws
    choices = {
        "augment": (options.augment, KINDS),
        "sampling": (draws.sampling, MODES),
        "negatives": (draws.negatives, NEGATIVES),
        "bad_images": (options.bad_images, ("stop", "replace")),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise UserError(f"train.{name}={value!r}: write one of {', '.join(allowed)}")
    least = {"image_size": 1, "context_length": 3, "workers": 0, "prefetch": 1}
    for name, bound in least.items():
        value = getattr(options, name)
        if value < bound:
            raise UserError(f"{_OPTIONS.get(name, f'train.{name}')}={value}: write {bound} or more")
    if draws.prompts < 0:
        raise UserError(f"train.prompts={draws.prompts}: write 0 or more")
    if not (math.isfinite(draws.temperature) and draws.temperature > 0):
        raise UserError(f"train.temperature={draws.temperature}: write a number above 0")
