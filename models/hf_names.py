"""The names of GroupViT's tensors in Hugging Face's model and in ours, both ways."""

from __future__ import annotations

import re

__all__ = ["FUSED", "our_name", "their_name"]

# {} stands for a number, the same on both sides; the longer of two that begin alike comes first.
_PLACES = (
    ("vision_model.encoder.stages.{}.layers.{}", "image_encoder.stages.{}.blocks.{}"),
    ("vision_model.encoder.stages.{}.downsample", "image_encoder.stages.{}.grouping"),
    ("vision_model.encoder.stages.{}.group_token", "image_encoder.stages.{}.group_tokens"),
    ("vision_model.encoder.stages.{}.group_projector", "image_encoder.stages.{}.carry"),
    ("vision_model.embeddings.patch_embeddings.projection", "image_encoder.embedding.projection"),
    ("vision_model.embeddings.position_embeddings", "image_encoder.embedding.positions"),
    ("vision_model.embeddings.layernorm", "image_encoder.embedding.norm"),
    ("vision_model.layernorm", "image_encoder.norm"),
    ("text_model.encoder.layers.{}", "text_encoder.blocks.{}"),
    ("text_model.embeddings.token_embedding", "text_encoder.tokens"),
    ("text_model.embeddings.position_embedding.weight", "text_encoder.positions"),
    ("text_model.final_layer_norm", "text_encoder.norm"),
    ("visual_projection.0", "image_projector.fc1"),
    ("visual_projection.1", "image_projector.norm"),
    ("visual_projection.3", "image_projector.fc2"),
    ("text_projection.0", "text_projector.fc1"),
    ("text_projection.1", "text_projector.norm"),
    ("text_projection.3", "text_projector.fc2"),
    ("logit_scale", "logit_scale"),
)
# Inside of a block or a grouping block. name#q is a part of the fused tensor name.
_INSIDE = (
    *((f".self_attn.{letter}_proj", f".attention.qkv#{letter}") for letter in "qkv"),
    (".self_attn.out_proj", ".attention.out"),
    (".layer_norm1", ".norm1"),
    (".layer_norm2", ".norm2"),
    (".norm_tokens", ".norm_groups"),
    (".norm_post_tokens", ".norm_mixed"),
    (".norm_x", ".norm_segments"),
    (".norm_new_x", ".norm_merged"),
    (".mlp_inter", ".mixer"),
    (".mlp_channels", ".merged_mlp"),
    (".pre_assign_attn.attn.q_proj", ".cross.q"),
    *((f".pre_assign_attn.attn.{letter}_proj", f".cross.kv#{letter}") for letter in "kv"),
    (".pre_assign_attn.attn.out_proj", ".cross.out"),
    (".pre_assign_attn.norm2", ".norm_cross"),
    (".pre_assign_attn.norm_post", ".norm_cross_out"),
    (".pre_assign_attn.mlp", ".cross_mlp"),
    *((f".assign.{letter}_proj", f".assign.{letter}") for letter in "qkv"),
    (".assign.proj", ".assign.out"),
)

FUSED = {".attention.qkv": "qkv", ".cross.kv": "kv"}
"""Our fused tensors -> the parts, in the order they are put together."""


def our_name(name: str) -> str:
    """HF's name -> ours; a part of a fused tensor has ``#q`` (or k, v) before ``.weight`` or ``.bias``.

    Raises:
        KeyError: not a tensor of HF's GroupViT.
    """
    return _renamed(name, _PLACES, _INSIDE)


def their_name(name: str) -> str:
    """Our name, with ``#q`` if it is a part of a fused tensor -> HF's.

    Raises:
        KeyError: not a tensor that HF's GroupViT has.
    """
    swapped = [tuple((ours, theirs) for theirs, ours in table) for table in (_PLACES, _INSIDE)]
    return _renamed(name, *swapped)


def _renamed(name: str, places: tuple[tuple[str, str], ...], inside: tuple[tuple[str, str], ...]) -> str:
    for old, new in places:
        match = re.match(re.escape(old).replace(r"\{\}", r"(\d+)") + r"(?=\.|$)", name)
        if match:
            rest = name[match.end() :]
            for part, other in (
                inside if new.endswith(("blocks.{}", "layers.{}", "grouping", "downsample")) else ()
            ):
                if re.match(re.escape(part) + r"(?=\.|$)", rest):
                    rest = other + rest[len(part) :]
                    break
            return new.format(*match.groups()) + rest
    raise KeyError(f"{name} is not a tensor of HF's GroupViT")
