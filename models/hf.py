"""Hugging Face GroupViT folders (e.g. of nvidia/groupvit-gcc-yfcc) to weight files, and weight files to such folders.

``python -m models.hf FOLDER OUT.pt`` writes a weight file that evaluation and training read;
``python -m models.hf FILE.pt FOLDER`` writes a folder that GroupViTModel.from_pretrained reads, with a model card.
Nothing is downloaded and transformers is not needed. HF has no temperature for the multi-label loss: it travels in
config.json, and folders of others get the initial one.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError, run_entry
from configs.json_files import read_json
from configs.paths import expand_home
from models.groupvit import GroupViT, GroupViTConfig
from models.hf_export import MULTI_LABEL_KEY, save_hf_groupvit
from models.hf_names import FUSED, our_name
from models.weights import load_model, save_model

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


def load_hf_groupvit(folder: str | Path) -> GroupViT:
    """A local HF folder (config.json and model.safetensors or pytorch_model.bin) -> the model, evaluation mode.

    Raises:
        UserError: a missing or unreadable file, or an architecture that ours does not cover.
    """
    folder = Path(folder)
    values = _read_config(folder / "config.json")
    config = convert_hf_config(values)
    weights = _read_weights(folder)
    model = GroupViT(config)
    try:
        model.load_state_dict(convert_hf_state_dict(weights, config))
    except (KeyError, RuntimeError) as error:
        lines = " ".join(str(error).split())[:300]
        raise UserError(f"{folder}: the weights are not those of its config.json: {lines}") from error
    if MULTI_LABEL_KEY in values:
        model.multi_label_logit_scale.data.fill_(values[MULTI_LABEL_KEY])
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
        new = our_name(name)
        if "#" in new:
            whole, part = new.split("#")
            letter, kind = part.split(".")
            parts.setdefault(f"{whole}.{kind}", {})[letter] = value
        else:
            converted[new] = value
    for name, pieces in parts.items():
        letters = next(letters for end, letters in FUSED.items() if name.rpartition(".")[0].endswith(end))
        converted[name] = torch.cat([pieces[letter] for letter in letters])
    return converted


def _one_side(value: int | list[int]) -> int:
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise UserError(f"config.json: image and patch sizes must be square, not {value}")
    return sides.pop()


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the folder of a downloaded GroupViT checkpoint")
    values = read_json(path)
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
    """Entry of ``python -m models.hf FOLDER OUT.pt`` and ``python -m models.hf FILE.pt FOLDER``."""
    if len(arguments) != 2:
        raise UserError("usage: python -m models.hf FOLDER OUT.pt, or python -m models.hf FILE.pt FOLDER")
    source, out = map(expand_home, arguments)
    if Path(source).is_file():
        model, rest = load_model(source)
        save_hf_groupvit(out, model, rest)
    else:
        model = load_hf_groupvit(source)
        save_model(out, model)
    print(f"{out}: {sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    run_entry(main)
