"""Hugging Face GroupViT checkpoints (e.g. nvidia/groupvit-gcc-yfcc) to ours, from a local folder.

``python -m models.hf FOLDER OUT.pt`` writes a weight file that evaluation and training read. Nothing is
downloaded and transformers is not needed. HF has no temperature for the multi-label loss: it gets the
initial one.
"""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError, run_entry
from models.groupvit import GroupViT, GroupViTConfig
from models.weights import save_model

__all__ = ["convert_hf_config", "convert_hf_state_dict", "load_hf_groupvit"]

# What HF assumes where config.json leaves a value out.
_TEXT_DEFAULTS = {
    "vocab_size": 49408, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 12,
    "num_attention_heads": 4, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
_VISION_DEFAULTS = {
    "hidden_size": 384, "intermediate_size": 1536, "depths": [6, 3, 3], "num_group_tokens": [64, 8, 0],
    "num_output_groups": [64, 8, 8], "num_attention_heads": 6, "image_size": 224, "patch_size": 16,
    "num_channels": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-5, "assign_eps": 1.0, "assign_mlp_ratio": [0.5, 4],
}  # fmt: skip

_TEXT_BLOCK = r"text_model\.encoder\.layers\.(\d+)"
_IMAGE_BLOCK = r"vision_model\.encoder\.stages\.(\d+)\.layers\.(\d+)"
_GROUPING = r"vision_model\.encoder\.stages\.(\d+)\.downsample"
_RENAMES: tuple[tuple[str, str], ...] = (
    (_TEXT_BLOCK, r"text_encoder.blocks.\1"),
    (_IMAGE_BLOCK, r"image_encoder.stages.\1.blocks.\2"),
    (_GROUPING, r"image_encoder.stages.\1.grouping"),
    (r"vision_model\.encoder\.stages\.(\d+)\.group_token$", r"image_encoder.stages.\1.group_tokens"),
    (r"vision_model\.encoder\.stages\.(\d+)\.group_projector", r"image_encoder.stages.\1.carry"),
    (r"vision_model\.embeddings\.patch_embeddings\.projection", "image_encoder.embedding.projection"),
    (r"vision_model\.embeddings\.position_embeddings", "image_encoder.embedding.positions"),
    (r"vision_model\.embeddings\.layernorm", "image_encoder.embedding.norm"),
    (r"vision_model\.layernorm", "image_encoder.norm"),
    (r"text_model\.embeddings\.token_embedding", "text_encoder.tokens"),
    (r"text_model\.embeddings\.position_embedding\.weight", "text_encoder.positions"),
    (r"text_model\.final_layer_norm", "text_encoder.norm"),
    (r"visual_projection\.0", "image_projector.fc1"),
    (r"visual_projection\.1", "image_projector.norm"),
    (r"visual_projection\.3", "image_projector.fc2"),
    (r"text_projection\.0", "text_projector.fc1"),
    (r"text_projection\.1", "text_projector.norm"),
    (r"text_projection\.3", "text_projector.fc2"),
)
# Inside a block or a grouping block; the fused projections are put together afterwards.
_INNER: tuple[tuple[str, str], ...] = (
    (r"\.self_attn\.([qkv])_proj", r".attention.qkv#\1"),
    (r"\.self_attn\.out_proj", ".attention.out"),
    (r"\.layer_norm([12])", r".norm\1"),
    (r"\.norm_tokens", ".norm_groups"),
    (r"\.norm_post_tokens", ".norm_mixed"),
    (r"\.norm_x", ".norm_segments"),
    (r"\.norm_new_x", ".norm_merged"),
    (r"\.mlp_inter", ".mixer"),
    (r"\.mlp_channels", ".merged_mlp"),
    (r"\.pre_assign_attn\.attn\.q_proj", ".cross.q"),
    (r"\.pre_assign_attn\.attn\.([kv])_proj", r".cross.kv#\1"),
    (r"\.pre_assign_attn\.attn\.out_proj", ".cross.out"),
    (r"\.pre_assign_attn\.norm2", ".norm_cross"),
    (r"\.pre_assign_attn\.norm_post", ".norm_cross_out"),
    (r"\.pre_assign_attn\.mlp", ".cross_mlp"),
    (r"\.assign\.([qkv])_proj", r".assign.\1"),
    (r"\.assign\.proj", ".assign.out"),
)


def load_hf_groupvit(folder: str | Path) -> GroupViT:
    """A local HF folder (config.json and model.safetensors or pytorch_model.bin) -> the model, evaluation mode.

    Raises:
        UserError: a missing or unreadable file, or an architecture that ours does not cover.
    """
    folder = Path(folder)
    config = convert_hf_config(_read_config(folder / "config.json"))
    weights = _read_weights(folder)
    model = GroupViT(config)
    try:
        model.load_state_dict(convert_hf_state_dict(weights, config))
    except (KeyError, RuntimeError) as error:
        lines = " ".join(str(error).split())[:300]
        raise UserError(f"{folder}: the weights are not those of its config.json: {lines}") from error
    return model.eval()


def convert_hf_config(values: Mapping[str, Any]) -> GroupViTConfig:
    """The content of HF's config.json -> our configuration.

    Raises:
        UserError: it asks for something that GroupViT as published does not have.
    """
    if values.get("model_type", "groupvit") != "groupvit":
        raise UserError(f"config.json is of a {values['model_type']} model; a groupvit one is needed")
    text = _TEXT_DEFAULTS | (values.get("text_config_dict") or {}) | (values.get("text_config") or {})
    vision = _VISION_DEFAULTS | (values.get("vision_config_dict") or {}) | (values.get("vision_config") or {})
    tokens = tuple(vision["num_group_tokens"])
    mlp_ratio = vision["intermediate_size"] / vision["hidden_size"]
    needed = {
        "text hidden_act": (text["hidden_act"], "quick_gelu"),
        "text intermediate_size": (text["intermediate_size"], 4 * text["hidden_size"]),
        "text layer_norm_eps": (text["layer_norm_eps"], 1e-5),
        "vision hidden_act": (vision["hidden_act"], "gelu"),
        "vision layer_norm_eps": (vision["layer_norm_eps"], 1e-5),
        "vision num_channels": (vision["num_channels"], 3),
        "vision num_output_groups": (tuple(vision["num_output_groups"][: len(tokens) - 1]), tokens[:-1]),
        "vision assign_eps": (vision["assign_eps"], 1.0),
        "vision assign_mlp_ratio": (tuple(vision["assign_mlp_ratio"]), (0.5, mlp_ratio)),
    }
    for name, (found, wanted) in needed.items():
        if found != wanted:
            raise UserError(f"config.json: {name} is {found!r}; only {wanted!r} can be converted")
    return GroupViTConfig(
        image_size=_one_side(vision["image_size"]),
        patch_size=_one_side(vision["patch_size"]),
        width=vision["hidden_size"],
        depths=tuple(vision["depths"]),
        heads=vision["num_attention_heads"],
        mlp_ratio=mlp_ratio,
        group_tokens=tokens,
        text_width=text["hidden_size"],
        text_layers=text["num_hidden_layers"],
        text_heads=text["num_attention_heads"],
        context_length=text["max_position_embeddings"],
        vocab_size=text["vocab_size"],
        embed_dim=values.get("projection_dim", 256),
        projector_hidden=values.get("projection_intermediate_dim", 4096),
        init_temperature=math.exp(-values.get("logit_scale_init_value", math.log(1 / 0.07))),
    )


def convert_hf_state_dict(
    weights: Mapping[str, torch.Tensor], config: GroupViTConfig
) -> dict[str, torch.Tensor]:
    """HF's tensors under our names, queries, keys and values put together as ours are.

    Raises:
        KeyError: a name that is not one of HF's GroupViT.
    """
    initial = torch.tensor(math.log(1.0 / config.init_temperature))
    converted: dict[str, torch.Tensor] = {"multi_label_logit_scale": initial}
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in weights.items():
        if name.endswith("position_ids"):  # a constant that older files hold
            continue
        new = _our_name(name)
        if "#" in new:
            whole, part = new.split("#")
            letter, kind = part.split(".")
            parts.setdefault(f"{whole}.{kind}", {})[letter] = value
        else:
            converted[new] = value
    for name, pieces in parts.items():
        letters = "qkv" if name.rpartition(".")[0].endswith("qkv") else "kv"
        converted[name] = torch.cat([pieces[letter] for letter in letters])
    return converted


def _our_name(name: str) -> str:
    if name == "logit_scale":
        return name
    for pattern, replacement in _RENAMES:
        renamed, count = re.subn(f"^{pattern}", replacement, name)
        if count:
            for inner, new in _INNER if ".blocks." in renamed or ".grouping." in renamed else ():
                renamed = re.sub(inner, new, renamed)
            return renamed
    raise KeyError(f"{name} is not a tensor of HF's GroupViT")


def _one_side(value: int | list[int]) -> int:
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise UserError(f"config.json: image and patch sizes must be square, not {value}")
    return sides.pop()


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the folder of a downloaded GroupViT checkpoint")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); download it again") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON object; download it again")
    return values


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    safe, plain = folder / "model.safetensors", folder / "pytorch_model.bin"
    path = safe if safe.is_file() else plain
    if not path.is_file():
        raise UserError(
            f"{folder}: has neither model.safetensors nor pytorch_model.bin; download one of them into it"
        )
    try:
        if path == safe:
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    first = " ".join(str(error).split())[:160]
    return UserError(f"{path}: truncated, or holds more than tensors ({first}); download it again")


def main(arguments: list[str]) -> None:
    """Entry of ``python -m models.hf FOLDER OUT.pt``."""
    if len(arguments) != 2:
        raise UserError(
            "usage: python -m models.hf FOLDER OUT.pt (the HF checkpoint's folder, the file to write)"
        )
    folder, out = arguments
    model = load_hf_groupvit(folder)
    save_model(out, model)
    print(f"{out}: {sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    run_entry(main)
