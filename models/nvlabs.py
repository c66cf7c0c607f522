"""Checkpoints of the authors' own code (NVlabs' GroupViT, CoCu) to ours, running nothing that is in them.

``python -m models.nvlabs FILE.pth OUT.pt`` writes a weight file that evaluation and training read. Beside the tensors
such a file holds Python objects of the libraries of its time (the run's configuration, the optimiser): whatever is
no tensor and no plain value is read as an inert stand-in and dropped. Sizes come from the tensors' shapes; both codes
use heads of 64 channels.
"""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError, run_entry
from configs.paths import expand_home
from models.groupvit import GroupViT, GroupViTConfig
from models.weights import save_model

__all__ = ["convert_names", "infer_config", "load_nvlabs"]

_HEAD = 64
_PLACES = (
    (r"img_encoder\.layers\.(\d+)\.blocks\.(\d+)", r"image_encoder.stages.\1.blocks.\2"),
    (r"img_encoder\.layers\.(\d+)\.downsample", r"image_encoder.stages.\1.grouping"),
    (r"img_encoder\.layers\.(\d+)\.group_token$", r"image_encoder.stages.\1.group_tokens"),
    (r"img_encoder\.layers\.(\d+)\.group_projector", r"image_encoder.stages.\1.carry"),
    (r"img_encoder\.patch_embed\.proj", "image_encoder.embedding.projection"),
    (r"img_encoder\.patch_embed\.norm", "image_encoder.embedding.norm"),
    (r"img_encoder\.pos_embed$", "image_encoder.embedding.positions"),
    (r"img_encoder\.norm", "image_encoder.norm"),
    (r"text_encoder\.transformer\.resblocks\.(\d+)", r"text_encoder.blocks.\1"),
    (r"text_encoder\.token_embedding", "text_encoder.tokens"),
    (r"text_encoder\.positional_embedding$", "text_encoder.positions"),
    (r"text_encoder\.ln_final", "text_encoder.norm"),
    (r"img_projector\.linear_hidden\.0", "image_projector.fc1"),
    (r"img_projector\.linear_hidden\.1", "image_projector.norm"),
    (r"img_projector\.linear_out", "image_projector.fc2"),
    (r"text_projector\.linear_hidden\.0", "text_projector.fc1"),
    (r"text_projector\.linear_hidden\.1", "text_projector.norm"),
    (r"text_projector\.linear_out", "text_projector.fc2"),
    (r"(multi_label_)?logit_scale$", r"\g<1>logit_scale"),
)
_IN_BLOCK = (
    (r"\.attn\.in_proj_(weight|bias)", r".attention.qkv.\1"),
    (r"\.attn\.qkv", ".attention.qkv"),
    (r"\.attn\.(out_)?proj", ".attention.out"),
    (r"\.ln_([12])", r".norm\1"),
    (r"\.mlp\.c_fc", ".mlp.fc1"),
    (r"\.mlp\.c_proj", ".mlp.fc2"),
)
_IN_GROUPING = (
    (r"\.norm_tokens", ".norm_groups"),
    (r"\.norm_post_tokens", ".norm_mixed"),
    (r"\.norm_x", ".norm_segments"),
    (r"\.norm_new_x", ".norm_merged"),
    (r"\.mlp_inter", ".mixer"),
    (r"\.mlp_channels", ".merged_mlp"),
    (r"\.pre_assign_attn\.attn\.q_proj", ".cross.q"),
    (r"\.pre_assign_attn\.attn\.([kv])_proj", r".cross.\1"),  # put together afterwards
    (r"\.pre_assign_attn\.attn\.proj", ".cross.out"),
    (r"\.pre_assign_attn\.norm2", ".norm_cross"),
    (r"\.pre_assign_attn\.norm_post", ".norm_cross_out"),
    (r"\.pre_assign_attn\.mlp", ".cross_mlp"),
    (r"\.assign\.([qkv])_proj", r".assign.\1"),
    (r"\.assign\.proj", ".assign.out"),
)


class _StandIn:
    """Takes the place of every object that is no tensor and no plain value; runs and keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _StandIn:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...


def load_nvlabs(path: str | Path) -> GroupViT:
    """The model of a ``.pth`` file, in evaluation mode.

    Raises:
        UserError: no such file, not a checkpoint of that code, or one of another architecture.
    """
    weights = _model_tensors(path, _read(path))
    try:
        config = infer_config(weights)
        model = GroupViT(config)
        model.load_state_dict(_with_temperature(convert_names(weights), config))
    except (KeyError, RuntimeError, UserError) as error:
        text = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: not a GroupViT of the authors' code as published: {text}") from None
    return model.eval()


def convert_names(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The authors' tensors under our names: keys and values of the grouping put together, 1 x 1 convolutions flat.

    Raises:
        KeyError: a name that their GroupViT does not have.
    """
    converted = {}
    for name, value in weights.items():
        new = _our_name(name)
        converted[new] = value.squeeze(-1) if re.search(r"projector\.fc\d\.weight$", new) else value
    for name in [name for name in converted if ".cross.k." in name]:
        keys, values = converted.pop(name), converted.pop(name.replace(".cross.k.", ".cross.v."))
        converted[name.replace(".cross.k.", ".cross.kv.")] = torch.cat([keys, values])
    return converted


def infer_config(weights: Mapping[str, torch.Tensor]) -> GroupViTConfig:
    """The sizes of a model of the authors' code, from the shapes of its tensors.

    Raises:
        KeyError: a tensor that tells a size is missing.
    """
    image, text = "img_encoder", "text_encoder.transformer.resblocks"
    width, _, patch, _ = weights[f"{image}.patch_embed.proj.weight"].shape
    stages = 1 + max(_numbers(weights, rf"{image}\.layers\.(\d+)\."))
    tokens = [weights.get(f"{image}.layers.{number}.group_token") for number in range(stages)]
    blocks = [_numbers(weights, rf"{image}\.layers\.{number}\.blocks\.(\d+)\.") for number in range(stages)]
    vocabulary, text_width = weights["text_encoder.token_embedding.weight"].shape
    hidden = weights["img_projector.linear_hidden.0.weight"].shape[0]
    return GroupViTConfig(
        image_size=round(weights[f"{image}.pos_embed"].shape[1] ** 0.5) * patch,
        patch_size=patch,
        width=width,
        depths=tuple(1 + max(found) for found in blocks),
        heads=max(width // _HEAD, 1),
        mlp_ratio=weights[f"{image}.layers.0.blocks.0.mlp.fc1.weight"].shape[0] / width,
        group_tokens=tuple(0 if value is None else value.shape[1] for value in tokens),
        text_width=text_width,
        text_layers=1 + max(_numbers(weights, rf"{re.escape(text)}\.(\d+)\.")),
        text_heads=max(text_width // _HEAD, 1),
        context_length=weights["text_encoder.positional_embedding"].shape[0],
        vocab_size=vocabulary,
        embed_dim=weights["img_projector.linear_out.weight"].shape[0],
        projector_hidden=hidden,
    )


def _our_name(name: str) -> str:
    for pattern, place in _PLACES:
        match = re.match(pattern, name)
        if match is None:
            continue
        new, rest = match.expand(place), name[match.end() :]
        inside = _IN_GROUPING if ".grouping" in new else _IN_BLOCK if ".blocks." in new else ()
        for part, other in inside:
            rest, count = re.subn(f"^{part}(?=\\.|$)", other, rest)
            if count:
                break
        return new + rest
    raise KeyError(f"it has a tensor {name}")


def _numbers(weights: Mapping[str, torch.Tensor], pattern: str) -> list[int]:
    found = [int(match[1]) for name in weights if (match := re.match(pattern, name))]
    if not found:
        raise KeyError(f"it has no tensor {pattern}")
    return found


def _with_temperature(weights: dict[str, torch.Tensor], config: GroupViTConfig) -> dict[str, torch.Tensor]:
    """Files of models that were trained without the multi-label loss lack its temperature."""
    initial = torch.tensor(math.log(1.0 / config.init_temperature))
    return {"multi_label_logit_scale": initial, **weights}


def _model_tensors(path: str | Path, content: Any) -> dict[str, torch.Tensor]:
    """The table of tensors, alone or under ``model``, without the prefix of a distributed run."""
    tensors = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(tensors, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in tensors.values()
    ):
        raise UserError(
            f"{path}: holds no table of tensors under 'model'; name a checkpoint of the authors' code"
        )
    return {str(name).removeprefix("module."): value for name, value in tensors.items()}


def _read(path: str | Path) -> Any:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; name a downloaded .pth of NVlabs' GroupViT or of CoCu")
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(_StandIn, name) for name in names]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError,
            AttributeError, zipfile.BadZipFile) as error:  # fmt: skip
        text = " ".join(str(error).split())[:160]
        raise UserError(
            f"{path}: cannot be read as tensors and plain values ({text}); download it again"
        ) from None


def main(arguments: list[str]) -> None:
    """Entry of ``python -m models.nvlabs FILE.pth OUT.pt``."""
    if len(arguments) != 2:
        raise UserError(
            "usage: python -m models.nvlabs FILE.pth OUT.pt (the authors' file, the file to write)"
        )
    source, out = map(expand_home, arguments)
    model = load_nvlabs(source)
    save_model(out, model)
    print(f"{out}: {sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    run_entry(main)
