"""A GroupViT as a folder that Hugging Face's GroupViTModel.from_pretrained reads, with a model card."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError
from models.groupvit import MAX_LOG_SCALE, GroupViT, GroupViTConfig
from models.hf_names import FUSED, their_name
from models.pixels import MEAN, STD

__all__ = ["MULTI_LABEL_KEY", "hf_config", "hf_state_dict", "save_hf_groupvit"]

MULTI_LABEL_KEY = "multi_label_logit_scale"
"""In config.json: the temperature (log of its inverse) of the loss that HF's model does not have."""

_OURS_ALONE = "multi_label_logit_scale"
_CARD = """---
library_name: transformers
tags: [groupvit, zero-shot-image-classification, image-segmentation]
---
# GroupViT, {parameters:,} parameters

Written by `python -m models.hf` of CoCu on Spark from `{source}`. Images of {image_size} pixels, patches of
{patch_size}, group tokens {group_tokens}, texts of {context_length} tokens at most.
{training}
```
from transformers import GroupViTModel
model = GroupViTModel.from_pretrained(FOLDER)
```

Texts are tokenised by CLIP's tokenizer (CLIPTokenizer, e.g. of openai/clip-vit-base-patch32), cut to {context_length} tokens.
Pixels are scaled to 0..1, then by the mean {mean} and the deviation {std} of preprocessor_config.json.
HF's `output_segmentation` is not the protocol of the papers; `python -m models.hf FOLDER FILE.pt` brings the
model back for `evaluation.evaluate`.
"""


def save_hf_groupvit(folder: str | Path, model: GroupViT, facts: Mapping[str, Any] | None = None) -> None:
    """Write config.json, model.safetensors, preprocessor_config.json and README.md.

    Args:
        folder: made if it is not there.
        model: its logits and HF's are equal.
        facts: what the weight file holds beside the model; a checkpoint's progress goes into the card.

    Raises:
        UserError: nothing can be written there; the model has what HF's does not (see :func:`hf_config`).
    """
    from safetensors.torch import save_file

    place, described = Path(folder), hf_config(model.config)
    tensors = {name: value.contiguous() for name, value in hf_state_dict(model.state_dict()).items()}
    try:
        place.mkdir(parents=True, exist_ok=True)
        save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
        scale = model.multi_label_logit_scale.item()
        _write_json(place / "config.json", {**described, MULTI_LABEL_KEY: scale})
        _write_json(place / "preprocessor_config.json", _preprocessor(model.config))
        (place / "README.md").write_text(_card(model, facts or {}), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{place}: cannot be written ({error.strerror or error}); name another folder"
        ) from None


def hf_config(config: GroupViTConfig) -> dict[str, Any]:
    """What HF's config.json says of such a model.

    Raises:
        UserError: the model has what HF's GroupViT does not.
    """
    for name, value in {"stem": "linear", "assign_centred": False}.items():
        if getattr(config, name) != value:
            raise UserError(
                f"{name}={getattr(config, name)}: Hugging Face's GroupViT has no such part; only models of "
                f"{name}={value} can be written as its folders"
            )
    tokens, vocabulary = list(config.group_tokens), config.vocab_size
    text = {
        "vocab_size": vocabulary, "hidden_size": config.text_width, "intermediate_size": 4 * config.text_width,
        "num_hidden_layers": config.text_layers, "num_attention_heads": config.text_heads,
        "max_position_embeddings": config.context_length, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
        # the two highest ids, as in CLIP's vocabulary; HF looks for the end token by its id
        "bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": config.width, "intermediate_size": int(config.width * config.mlp_ratio),
        "depths": list(config.depths), "num_hidden_layers": sum(config.depths), "num_group_tokens": tokens,
        "num_output_groups": [*tokens[:-1], tokens[-2]], "num_attention_heads": config.heads,
        "image_size": config.image_size, "patch_size": config.patch_size, "num_channels": 3, "hidden_act": "gelu",
        "layer_norm_eps": 1e-5, "assign_eps": 1.0, "assign_mlp_ratio": [0.5, config.mlp_ratio],
    }  # fmt: skip
    return {
        "model_type": "groupvit", "architectures": ["GroupViTModel"], "text_config": text, "vision_config": vision,
        "projection_dim": config.embed_dim, "projection_intermediate_dim": config.projector_hidden,
        "logit_scale_init_value": math.log(1 / config.init_temperature), "torch_dtype": "float32",
    }  # fmt: skip


def hf_state_dict(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our tensors under HF's names, fused queries, keys and values taken apart; the temperature under its cap."""
    converted: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        place, _, kind = name.rpartition(".")
        letters = next((letters for end, letters in FUSED.items() if place.endswith(end)), "")
        if letters:
            for letter, part in zip(letters, value.chunk(len(letters)), strict=True):
                converted[their_name(f"{place}#{letter}.{kind}")] = part.clone()
        elif name == "logit_scale":
            converted[name] = value.clamp(max=MAX_LOG_SCALE)
        elif name != _OURS_ALONE:
            converted[their_name(name)] = value
    return converted


def _preprocessor(config: GroupViTConfig) -> dict[str, Any]:
    return {
        "image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True, "do_resize": True, "resample": 3,
        "size": {"height": config.image_size, "width": config.image_size}, "do_center_crop": False,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": list(MEAN), "image_std": list(STD),
    }  # fmt: skip


def _card(model: GroupViT, facts: Mapping[str, Any]) -> str:
    progress = facts.get("progress") or {}
    known = [
        f"{progress[key]:,} {word}"
        for key, word in (("epoch", "epochs"), ("global_step", "steps"), ("rows", "images"))
        if isinstance(progress.get(key), int)
    ]
    return _CARD.format(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        source="a checkpoint" if known else "a weight file",
        training=f"Trained for {', '.join(known)}.\n" if known else "",
        mean=list(MEAN),
        std=list(STD),
        **{
            name: getattr(model.config, name)
            for name in ("image_size", "patch_size", "group_tokens", "context_length")
        },
    )


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
