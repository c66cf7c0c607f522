"""The mean of the weights of several checkpoints of one training (Izmailov et al. 2018).

  python -m models.average OUT.pt CHECKPOINT CHECKPOINT ...

While the learning rate is high, weights wander around a better place than any of them; their mean is nearer to it and
costs nothing. Checkpoints must be of one training, or start from each other: means of strangers mean nothing. Batch
norms' statistics are averaged like weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from configs.errors import UserError, run_entry
from configs.paths import expand_home
from models.groupvit import GroupViT
from models.weights import load_model, save_model

__all__ = ["average_models", "main"]


def average_models(paths: Sequence[str | Path]) -> GroupViT:
    """The mean of the models in weight files or checkpoints, in evaluation mode.

    Raises:
        UserError: a file cannot be read or holds a model of another configuration.
    """
    whole, _ = load_model(paths[0])
    sums = {name: value.double() for name, value in whole.state_dict().items() if value.is_floating_point()}
    for path in paths[1:]:
        model, _ = load_model(path)
        if model.config != whole.config:
            raise UserError(
                f"{path}: is of another model than {paths[0]}; average checkpoints of one training"
            )
        weights = model.state_dict()
        for name, total in sums.items():
            total += weights[name]
    with torch.no_grad():
        for name, value in whole.state_dict().items():
            if name in sums:
                value.copy_(sums[name] / len(paths))
    return whole


def main(argv: Sequence[str]) -> int:
    """Entry of the process."""
    parser = argparse.ArgumentParser(
        prog="python -m models.average",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=expand_home, metavar="OUT.pt", help="weight file to write")
    parser.add_argument(
        "checkpoints", type=expand_home, nargs="+", metavar="CHECKPOINT", help="two or more of one training"
    )
    options = parser.parse_args(argv)
    save_model(options.out, average_models(options.checkpoints))
    print(f"{options.out}: the mean of {len(options.checkpoints)} checkpoints")
    return 0


if __name__ == "__main__":
    run_entry(main)
