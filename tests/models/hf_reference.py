"""HF transformers' GroupViT as the independent reference, with weights that make every part count."""

from __future__ import annotations

import torch
from transformers import GroupViTConfig as HfConfig
from transformers import GroupViTModel as HfModel

from models.groupvit import GroupViT
from models.hf import convert_hf_config, convert_hf_state_dict

# sizes that differ from each other wherever they may, so that a mix-up cannot go unseen
SMALL = {
    "projection_dim": 20,
    "projection_intermediate_dim": 44,
    "text_config": {
        "hidden_size": 24,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "max_position_embeddings": 18,
        "vocab_size": 120,
        "eos_token_id": 119,
        "bos_token_id": 118,
    },
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 128,
        "depths": [2, 1, 2],
        "num_hidden_layers": 5,
        "num_group_tokens": [10, 5, 0],
        "num_output_groups": [10, 5, 5],
        "num_attention_heads": 4,
        "image_size": 48,
        "patch_size": 8,
    },
}
PAPER: dict[str, object] = {}


def pair(
    values: dict[str, object], seed: int, dtype: torch.dtype = torch.float32
) -> tuple[HfModel, GroupViT]:
    """HF's model with random weights and ours with the same ones, both in evaluation mode."""
    torch.manual_seed(seed)
    hf_config = HfConfig(**values)
    reference = HfModel(hf_config)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            # HF starts norms at 1 and 0 and group tokens at 0: a swapped pair would not show
            if parameter.ndim <= 1 and name != "logit_scale":
                parameter.add_(0.1 * torch.randn_like(parameter))
            if "position_embeddings" in name or "group_token" in name:
                parameter.add_(0.5 * torch.randn_like(parameter))
            # initial weights give nearly uniform maps: make the assignments decided
            if ".assign.q_proj.weight" in name or ".assign.k_proj.weight" in name:
                parameter.mul_(6.0)
        for name, buffer in reference.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.1 * torch.randn_like(buffer))
            if name.endswith("running_var"):
                buffer.mul_(torch.rand_like(buffer) + 0.5)
    config = convert_hf_config(hf_config.to_dict())
    ours = GroupViT(config)
    ours.load_state_dict(convert_hf_state_dict(reference.state_dict(), config))
    return reference.to(dtype).eval(), ours.to(dtype).eval()


def tokens(count: int, length: int, vocabulary: int, seed: int) -> torch.Tensor:
    """Texts of all lengths from 2 to ``length``: start, words, end (the highest id), zeros."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.zeros(count, length, dtype=torch.int64)
    for row in range(count):
        end = 1 + int(torch.randint(0, length - 1, (), generator=generator))
        rows[row, :end] = torch.randint(1, vocabulary - 2, (end,), generator=generator)
        rows[row, 0] = vocabulary - 2
        rows[row, end] = vocabulary - 1
    return rows
