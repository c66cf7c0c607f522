"""What a person should hear of a training that goes wrong without an error: a collapse, a cap, a plateau."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from models.groupvit import GroupViT
from models.pixels import normalise

__all__ = ["groups_used", "signs"]

_FEW_GROUPS = 1.5
_CAP = 99.9
_VALIDATIONS = 5
_MARGIN = 0.005


@torch.no_grad()
def groups_used(model: GroupViT, images: torch.Tensor) -> tuple[float, ...]:
    """Of each grouping stage, how many groups an image's patches are in, on average; uint8 images (n, H, W, 3)."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    found = model.encode_image(normalise(images.to(device)), with_maps=True)
    model.train(was_training)
    used, joint = [], None
    for soft in found.assignments:
        joint = soft if joint is None else soft @ joint
        owners = torch.nn.functional.one_hot(joint.argmax(dim=1), joint.shape[1])
        used.append(float(owners.any(dim=1).sum(dim=1).float().mean()))
    return tuple(used)


def signs(
    used: Sequence[float], scales: dict[str, float], values: Sequence[float], higher_is_better: bool
) -> list[str]:
    """Sentences on what looks wrong; none where nothing does.

    Args:
        used: of :func:`groups_used`.
        scales: name -> inverse temperature, at most 100.
        values: of all validations so far, by one measure.
        higher_is_better: whether a larger value is the better one.
    """
    said = []
    for stage, number in enumerate(used, 1):
        if number <= _FEW_GROUPS:
            said.append(
                f"the grouping has collapsed: stage {stage} puts an image's patches into {number:.1f} groups on average; "
                "train.model_options={assign_centred: true, assign_gain: 1.5} mends it (docs/training.md)"
            )
            break
    for name, scale in scales.items():
        if scale >= _CAP:
            said.append(
                f"the inverse temperature of the {name} is at its cap of 100: the loss asks for more contrast than it may "
                "have; a lower train.lr or more pairs may help"
            )
    signed = [value if higher_is_better else -value for value in values]
    if len(signed) > _VALIDATIONS:
        before, since = max(signed[:-_VALIDATIONS]), max(signed[-_VALIDATIONS:])
        if since < before + _MARGIN * abs(before):
            said.append(
                f"a plateau: the best of the last {_VALIDATIONS} validations, {abs(since):.4g}, is not {_MARGIN:.1%} "
                f"better than the best before them, {abs(before):.4g}"
            )
    return said
