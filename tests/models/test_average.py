"""Means of checkpoints, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from configs.errors import UserError
from models.average import average_models, main
from models.groupvit import GroupViT, GroupViTConfig
from models.weights import load_model, save_model


def saved(folder, seeds, **changes):
    paths = []
    for seed in seeds:
        torch.manual_seed(seed)
        model = GroupViT(GroupViTConfig.preset("tiny", **changes))
        model.text_projector.norm.running_mean.normal_()
        paths.append(folder / f"{seed}-{len(changes)}.pt")
        save_model(paths[-1], model, step=seed)
    return paths


def test_every_weight_and_statistic_is_the_mean(tmp_path):
    paths = saved(tmp_path, (1, 2, 3))
    assert main([str(tmp_path / "out.pt"), *map(str, paths)]) == 0
    found, _ = load_model(tmp_path / "out.pt")
    parts = [load_model(path)[0].state_dict() for path in paths]
    for name, value in found.state_dict().items():
        if value.is_floating_point():
            expected = np.mean([part[name].double().numpy() for part in parts], axis=0)
            np.testing.assert_allclose(value.numpy(), expected, rtol=1e-6, atol=1e-8, err_msg=name)
    assert not found.training


def test_one_alone_is_itself_and_others_sizes_are_refused(tmp_path):
    (path,) = saved(tmp_path, (4,))
    weights = load_model(path)[0].state_dict()
    assert all(
        torch.equal(value, weights[name]) for name, value in average_models([path]).state_dict().items()
    )
    with pytest.raises(UserError, match="is of another model than"):
        average_models([path, *saved(tmp_path, (5,), width=64)])
