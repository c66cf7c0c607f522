"""A small corpus, a tiny CLIP model and a configuration for them."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

import models  # noqa: F401  (before open_clip)

WORDS = (
    "dog cat tree car boat house river bird horse flower bridge mountain train bicycle clock chair".split()
)


def write_shards(folder: Path, shards: int, samples: int, seed: int = 0) -> int:
    """img2dataset-like tars of small pictures; returns how many samples there are."""
    folder.mkdir(parents=True, exist_ok=True)
    source = random.Random(seed)
    colours = np.random.default_rng(seed)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for sample in range(samples):
                key = f"{shard:05d}{sample:04d}"
                coarse = colours.integers(0, 255, (4, 4, 3), dtype=np.uint8)
                image = Image.fromarray(coarse).resize((72, 64), Image.Resampling.BILINEAR)
                buffer = io.BytesIO()
                image.save(buffer, "JPEG")
                caption = f"a {source.choice(WORDS)} near a {source.choice(WORDS)}"
                for suffix, data in (("jpg", buffer.getvalue()), ("txt", caption.encode()), ("json", b"{}")):
                    info = tarfile.TarInfo(f"{key}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return shards * samples


def write_tiny_clip(
    folder: Path, slow_layers: int = 1, width: int = 64, embed_dim: int = 32
) -> tuple[str, str]:
    """An open_clip model without training, as a config and a checkpoint; more layers make it slower."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = folder / f"tiny-{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}.json"
    config.write_text(
        json.dumps(
            {
                "embed_dim": embed_dim,
                "vision_cfg": {
                    "image_size": 64,
                    "layers": slow_layers,
                    "width": width,
                    "patch_size": 16,
                    "head_width": 32,
                },
                "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
            }
        )
    )
    open_clip.add_model_config(config)
    torch.manual_seed(0)
    model = open_clip.create_model(config.stem)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "tiny.safetensors",
    )
    return str(config), str(folder / "tiny.safetensors")


def write_config(
    folder: Path, shards: Path, clip: tuple[str, str], rows_per_part: int = 20, **sections: dict
) -> Path:
    """A configuration file for such a corpus."""
    values = {
        "corpora": [{"name": "web", "format": "webdataset", "path": f"{shards}/*.tar"}],
        "ingest": {"rows_per_part": rows_per_part},
        "clip": {"name": clip[0], "pretrained": clip[1]},
        "concepts": {"min_count": 2},
        "index": {"kind": "flat"},
        "archives": {"top": 8},
        "export": {"archive_length": 8, "row_group_rows": 16},
        "report": {"samples": 4},
        **sections,
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    return path
