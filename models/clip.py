"""The frozen CLIP encoder: any open_clip model, by name and tag or by local files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

import models.torchvision_ops  # noqa: F401  (before open_clip, see there)
from configs.errors import UserError
from configs.json_files import read_json
from configs.schema import ClipConfig

if TYPE_CHECKING:
    from open_clip import CLIP

__all__ = [
    "Clip",
    "check_clip",
    "clip_fingerprint",
    "clip_settings",
    "clip_size",
    "crop_to_aspect",
    "load_clip",
    "pick_device",
]

_MOST_ASPECT = 8
_PARAMETERS = 149_620_737  # of ViT-B-16
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Clip:
    """A loaded encoder.

    ``dimension`` is that of the shared space of images and texts. ``mean`` and ``scale``, float32 (3 w,), take bytes to what
    the model sees, (x - mean) scale: of a line of a picture, as long operands are three times as fast as three channels.
    """

    model: CLIP
    tokenizer: Callable[[list[str]], torch.Tensor]
    resize: Callable[[Image.Image], Image.Image]
    mean: torch.Tensor
    scale: torch.Tensor
    image_size: tuple[int, int]
    dimension: int
    device: torch.device
    dtype: torch.dtype

    @property
    def precision(self) -> str:
        """What ``clip.precision`` would have to say for this one, ``auto`` or not: fp32, bf16 or fp16."""
        return next(name for name, dtype in _DTYPES.items() if dtype == self.dtype)

    def prepare(self, image: Image.Image) -> np.ndarray:
        """One RGB picture -> uint8 (h, w, 3), resized and cropped as the model's own transform does."""
        return np.asarray(self.resize(image), dtype=np.uint8)

    @torch.inference_mode()
    def encode_images(self, pixels: np.ndarray | torch.Tensor) -> np.ndarray:
        """uint8 (n, h, w, 3) -> float16 (n, d), L2-normalised.

        Normalisation of the pixels happens on the device, so that a quarter of the bytes is copied.
        """
        tensor = torch.from_numpy(pixels) if isinstance(pixels, np.ndarray) else pixels
        if self.device.type == "cuda":
            tensor = tensor.pin_memory().to(self.device, non_blocking=True)
        lines = tensor.to(torch.float32).flatten(2).sub_(self.mean).mul_(self.scale).to(self.dtype)
        features = self.model.encode_image(lines.view(tensor.shape).permute(0, 3, 1, 2))
        return self._finish(features)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """n texts -> float32 (n, d), L2-normalised."""
        parts = []
        for start in range(0, len(texts), batch_size):
            tokens = self.tokenizer(list(texts[start : start + batch_size])).to(self.device)
            features = functional.normalize(self.model.encode_text(tokens).float(), dim=-1)
            parts.append(features.cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, self.dimension), np.float32)

    @staticmethod
    def _finish(features: torch.Tensor) -> np.ndarray:
        return functional.normalize(features.float(), dim=-1).to(torch.float16).cpu().numpy()


def check_clip(config: ClipConfig) -> None:
    """Find a wrong model name, tag or path before anything heavy starts.

    Raises:
        UserError: which of ``clip.name`` and ``clip.pretrained`` is wrong, and what there is.
    """
    import open_clip

    name = _registered_name(config.name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if config.pretrained in tags:
        return
    path = Path(config.pretrained)
    if not config.pretrained:
        raise UserError(
            f"clip.pretrained is empty: name a tag of {name} ({', '.join(tags) or 'it has none'}) or a local checkpoint"
        )
    if not path.is_file():
        raise UserError(
            f"clip.pretrained={config.pretrained}: neither a file here nor a tag of {name}; tags: {', '.join(tags) or 'none'}"
        )


def clip_fingerprint(config: ClipConfig) -> str:
    """What identifies the weights: the tag, or 16 hex digits of the SHA-256 of the checkpoint file."""
    path = Path(config.pretrained)
    if not path.is_file():
        return f"tag:{config.pretrained}"
    return f"sha256:{_file_digest(str(path), path.stat().st_mtime_ns)}"


def clip_settings(config: ClipConfig) -> dict[str, str]:
    """The settings that shape the vectors, for a table's recipe."""
    return {"name": config.name, "weights": clip_fingerprint(config), "precision": config.precision}


@lru_cache(maxsize=4)
def _size(name: str) -> tuple[int, int, int]:
    import open_clip

    values = open_clip.get_model_config(name)
    size = values["vision_cfg"].get("image_size", 224)
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    if "timm_model_name" in values["vision_cfg"] or "hf_model_name" in values["text_cfg"]:
        return (
            values["embed_dim"],
            _PARAMETERS,
            height * width,
        )  # another library's parts, which would be downloaded
    wanted = {
        key: values[key] for key in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu") if key in values
    }
    with torch.device("meta"):
        parameters = sum(one.numel() for one in open_clip.CLIP(**wanted).parameters())
    return values["embed_dim"], parameters, height * width


def clip_size(config: ClipConfig) -> tuple[int, int, int]:
    """Dimension of the vectors, number of weights, pixels of an input image; no weights are read.

    For models that are not of open_clip's own parts the number of weights is taken to be ViT-B-16's.

    Raises:
        UserError: no such model.
    """
    return _size(_registered_name(config.name))


@lru_cache(maxsize=8)
def _file_digest(path: str, _mtime: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def pick_device(address: str | None = None) -> torch.device:
    """The GPU that Spark's scheduler gave this task (``address``), else the first one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number = int(address) if address is not None and address.isdigit() else 0
    # Spark counts the host's GPUs; where CUDA_VISIBLE_DEVICES narrows the view, the first visible is meant.
    return torch.device("cuda", number if number < torch.cuda.device_count() else 0)


_CACHE: dict[tuple[str, ...], Clip] = {}
_CACHE_LOCK = threading.Lock()


def load_clip(config: ClipConfig, device: torch.device | None = None) -> Clip:
    """The encoder of this configuration, loaded once a process.

    Raises:
        UserError: a wrong name or tag, a checkpoint that does not fit the model or holds code.
    """
    device = device or pick_device()
    key = (config.name, config.pretrained, config.precision, str(device), clip_fingerprint(config))
    with _CACHE_LOCK:
        if key not in _CACHE:
            _CACHE[key] = _load(config, device)
        return _CACHE[key]


def _fastest_precision(device: torch.device) -> str:
    """bf16 on a GPU and on a processor with AMX tiles, which compute ViT-B in a third to a quarter of the time; else fp32.

    By what the processor is, not by a measurement: hosts of a kind have to come to the same.
    """
    tiles = device.type == "cpu" and torch.cpu.get_capabilities().get("amx_bf16", False)
    return "bf16" if device.type == "cuda" or tiles else "fp32"


def _load(config: ClipConfig, device: torch.device) -> Clip:
    import open_clip

    check_clip(config)
    name = _registered_name(config.name)
    precision = _fastest_precision(device) if config.precision == "auto" else config.precision
    try:
        with _quiet():
            model, _, transform = open_clip.create_model_and_transforms(
                name, pretrained=config.pretrained, device=device, weights_only=not _is_openai(config)
            )
            tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:
        first = " ".join(str(error).split())[:300]
        raise UserError(
            f"clip.pretrained={config.pretrained} does not load as {name}: {type(error).__name__}: {first}"
        ) from error
    dtype = _DTYPES[precision]
    model = model.to(dtype).eval()
    model.requires_grad_(False)
    steps = list(getattr(transform, "transforms", []))
    kinds = [type(step).__name__ for step in steps]
    if kinds[-1:] != ["Normalize"]:
        raise UserError(
            f"clip.name={config.name}: its image transform ends in {kinds[-1:]}, not in Normalize; not supported"
        )
    geometry = [
        step
        for step, kind in zip(steps, kinds, strict=True)
        if kind not in ("Normalize", "ToTensor", "MaybeToTensor")
    ]

    middle_alone = "CenterCrop" in kinds

    def resize(image: Image.Image) -> Image.Image:
        if middle_alone:
            image = crop_to_aspect(image, _MOST_ASPECT)
        for step in geometry:
            image = step(image)
        return image

    size = model.visual.image_size
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    with torch.inference_mode():
        dimension = int(model.encode_text(tokenizer(["a"]).to(device)).shape[-1])
    mean, std = (
        torch.tensor(values, device=device).mul_(255.0).repeat(int(width))
        for values in (steps[-1].mean, steps[-1].std)
    )
    return Clip(
        model=model,
        tokenizer=tokenizer,
        resize=resize,
        mean=mean,
        scale=std.reciprocal_(),
        image_size=(int(height), int(width)),
        dimension=dimension,
        device=device,
        dtype=dtype,
    )


def crop_to_aspect(image: Image.Image, aspect: int) -> Image.Image:
    """The middle of a picture that is more than so many times as long as wide.

    A transform that scales the short side up and then cuts the middle out would else make gigabytes of
    65,000 x 1 pixels. The middle stays where it is to the half pixel.
    """
    short, long = sorted(image.size)
    kept = aspect * short + (long - aspect * short) % 2
    if kept >= long:
        return image
    start = (long - kept) // 2
    wide = image.width == long
    return image.crop((start, 0, start + kept, short) if wide else (0, start, short, start + kept))


def _is_openai(config: ClipConfig) -> bool:
    # OpenAI's own files are TorchScript archives, which torch loads only without weights_only; open_clip
    # verifies their SHA-256 when it downloads them. Files that the user names never get this exception.
    return config.pretrained == "openai" and not Path(config.pretrained).is_file()


def _registered_name(name: str) -> str:
    """The name open_clip knows the model by; a model-config JSON is registered under its file name."""
    import open_clip

    if name.endswith(".json"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"clip.name={name}: no such model-config file")
        values = read_json(path, "clip.name")
        missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(values if isinstance(values, dict) else {})
        if missing:
            raise UserError(
                f"clip.name={name}: not an open_clip model config: it lacks {', '.join(sorted(missing))}"
            )
        if path.stem not in open_clip.list_models():
            open_clip.add_model_config(path)
        return path.stem
    if name not in open_clip.list_models():
        import difflib

        near = difflib.get_close_matches(name, open_clip.list_models(), n=3, cutoff=0.4)
        raise UserError(
            f"clip.name={name}: open_clip has no such model; near: {', '.join(near) or 'none'}, or name a model-config .json"
        )
    return name


@contextlib.contextmanager
def _quiet() -> contextlib.AbstractContextManager[None]:  # type: ignore[misc]
    """open_clip logs an info line for each step; its progress bars on stderr break ours."""
    import logging

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        yield
    finally:
        root.setLevel(level)
