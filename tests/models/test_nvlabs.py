"""Checkpoints of the authors' own code: files with their names give HF's features, and run nothing of their own."""

import contextlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from configs.errors import UserError
from models.nvlabs import load_nvlabs
from models.weights import load_model
from tests.models.hf_reference import pair, tokens

ROOT = Path(__file__).parents[2]
# heads of 64 channels, as the authors' code has them
SIZES = {
    "projection_dim": 20,
    "projection_intermediate_dim": 44,
    "text_config": {
        "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 1,
        "max_position_embeddings": 18, "vocab_size": 120, "eos_token_id": 119, "bos_token_id": 118,
    },
    "vision_config": {
        "hidden_size": 128, "intermediate_size": 512, "depths": [2, 1, 2], "num_hidden_layers": 5,
        "num_group_tokens": [10, 5, 0], "num_output_groups": [10, 5, 5], "num_attention_heads": 2,
        "image_size": 48, "patch_size": 8,
    },
}  # fmt: skip
# HF's names -> the authors', as HF's own converter lists them (read backwards)
WORDS = (
    ("vision_model.encoder.stages", "img_encoder.layers"), ("vision_model.embeddings.patch_embeddings.projection", "img_encoder.patch_embed.proj"),
    ("vision_model.embeddings.position_embeddings", "img_encoder.pos_embed"), ("vision_model.embeddings.layernorm", "img_encoder.patch_embed.norm"),
    ("vision_model.layernorm", "img_encoder.norm"), ("text_model.encoder.layers", "text_encoder.transformer.resblocks"),
    ("text_model.embeddings.token_embedding", "text_encoder.token_embedding"),
    ("text_model.embeddings.position_embedding.weight", "text_encoder.positional_embedding"),
    ("text_model.final_layer_norm", "text_encoder.ln_final"), ("visual_projection.3", "img_projector.linear_out"),
    ("text_projection.3", "text_projector.linear_out"), ("visual_projection", "img_projector.linear_hidden"),
    ("text_projection", "text_projector.linear_hidden"),
)  # fmt: skip


def authors_names(state):
    """HF's tensors as the authors' code would store them."""
    made, parts = {}, {}
    for name, value in state.items():
        if name.endswith("position_ids"):
            continue
        for old, new in WORDS:
            name = name.replace(old, new)
        if name.startswith("img_encoder.layers"):
            name = re.sub(r"(layers\.\d+)\.layers", r"\1.blocks", name)
        words = name.startswith("text_encoder.transformer")
        for old, new in (("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("fc1", "c_fc"), ("fc2", "c_proj")) if words else (
            ("layer_norm1", "norm1"), ("layer_norm2", "norm2")):  # fmt: skip
            name = name.replace(old, new)
        if ".self_attn." in name:
            place, kind = name.split(".self_attn.")
            letter = kind[0]
            if kind.startswith("out_proj"):
                made[f"{place}.attn.{kind if words else kind.replace('out_', '')}"] = value
            else:
                end = kind.split(".")[1]
                parts.setdefault(f"{place}.attn.{f'in_proj_{end}' if words else f'qkv.{end}'}", {})[
                    letter
                ] = value
            continue
        name = name.replace("pre_assign_attn.attn.out_proj", "pre_assign_attn.attn.proj")
        if re.search(r"projector\.linear_(hidden\.0|out)\.weight", name):
            value = value[..., None]  # 1 x 1 convolutions there
        made[name] = value
    return made | {name: torch.cat([found[letter] for letter in "qkv"]) for name, found in parts.items()}


class Explosive:
    """Makes a folder when it is unpickled by the library's own means."""

    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


def authors_file(path, **extra):
    reference, _ = pair(SIZES, 6)
    content = {
        "model": authors_names(reference.state_dict()),
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-3}]},
        "epoch": 29,
        "max_metrics": {"max_miou": 52.3},
        "config": OmegaConf.create(
            {"model": {"type": "MultiLabelContrastive", "depths": [6, 3, 3]}, "local_rank": 0}
        ),
        **extra,
    }
    torch.save(content, path)
    return reference


def assert_equal_features(reference, ours):
    images, texts = torch.randn(2, 3, 48, 48), tokens(2, 18, 120, 0)
    with torch.no_grad():
        image, maps = (
            ours.encode_image(images),
            reference(input_ids=texts, pixel_values=images, output_attentions=True),
        )
        torch.testing.assert_close(image.pooled, reference.get_image_features(images).pooler_output)
        torch.testing.assert_close(ours.encode_text(texts), reference.get_text_features(texts).pooler_output)
    for mine, theirs in zip(image.assignments, maps.vision_model_output.attentions, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_a_file_with_their_names_and_objects_gives_hfs_features(tmp_path):
    reference = authors_file(tmp_path / "a.pth")
    with pytest.raises(Exception, match="Unsupported global"):
        torch.load(tmp_path / "a.pth", weights_only=True)  # its configuration is an object
    assert_equal_features(reference, load_nvlabs(tmp_path / "a.pth"))


def test_the_entry_writes_a_weight_file_with_both_temperatures(tmp_path):
    reference, _ = pair(SIZES, 6)
    tensors = authors_names(reference.state_dict()) | {"multi_label_logit_scale": torch.tensor(2.5)}
    torch.save({"model": {f"module.{name}": value for name, value in tensors.items()}}, tmp_path / "b.pth")
    command = [sys.executable, "-m", "models.nvlabs", str(tmp_path / "b.pth"), str(tmp_path / "out.pt")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    ours, _ = load_model(tmp_path / "out.pt")
    assert ours.multi_label_logit_scale.item() == 2.5
    assert torch.equal(ours.logit_scale, reference.logit_scale)
    assert_equal_features(reference, ours)


@pytest.mark.parametrize("payload", ["function", "method", "evaluated"])
def test_nothing_in_the_file_runs(tmp_path, payload):
    victim = tmp_path / "made-by-payload"
    made = {
        "function": (shutil.copytree, str(ROOT / "configs"), str(victim)),
        "method": (Path.mkdir, victim),
        "evaluated": (eval, f"__import__('os').mkdir({str(victim)!r})"),
    }[payload]
    reference = authors_file(tmp_path / "c.pth", more=Explosive(*made))
    with contextlib.suppress(UserError):  # refused, or read without it
        assert_equal_features(reference, load_nvlabs(tmp_path / "c.pth"))
    assert not victim.exists()
    torch.load(tmp_path / "c.pth", weights_only=False)  # the payload does work where it is let in
    assert victim.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"<html>", "cannot be read as tensors"),
        ([1], "holds no table of tensors"),
        ({"model": {"weight": "text"}}, "holds no table of tensors"),
        ({"model": {"visual.proj": torch.ones(2)}}, "not a GroupViT of the authors' code"),
    ],
)
def test_other_files_are_one_line(tmp_path, content, says):
    path = tmp_path / "x.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=rf"x\.pth: .*{says}"):
        load_nvlabs(path)


def test_a_tensor_that_is_missing_or_unknown_is_named(tmp_path):
    reference, _ = pair(SIZES, 6)
    tensors = authors_names(reference.state_dict())
    torch.save({"model": tensors | {"img_encoder.cls_token": torch.ones(1)}}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="img_encoder.cls_token"):
        load_nvlabs(tmp_path / "x.pth")
    del tensors["img_encoder.norm.bias"]
    torch.save({"model": tensors}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="image_encoder.norm.bias"):
        load_nvlabs(tmp_path / "x.pth")
