"""GroupViT: an image encoder that groups, a text encoder, and their common space."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import nn

from models.groupvit_config import GroupViTConfig
from models.image_encoder import ImageEncoder
from models.layers.blocks import Block, SelfAttention
from models.layers.grouping import AssignAttention
from models.layers.projector import Projector, project_together
from models.layers.stem import ConvolutionStem
from models.text_encoder import TextEncoder

__all__ = [
    "Encoded",
    "GroupViT",
    "GroupViTConfig",
    "ImageFeatures",
    "Projected",
    "Scales",
    "with_rounded_weights",
]

MAX_LOG_SCALE = math.log(100.0)


class ImageFeatures(NamedTuple):
    """What an image is encoded to; B images, E the common space, G segments, N patches."""

    pooled: torch.Tensor
    """(B, E): projected mean of the segments, not normalised."""
    segments: torch.Tensor | None
    """(B, G, E): each segment projected, not normalised; None while training."""
    assignments: tuple[torch.Tensor, ...]
    """Soft maps of the grouping stages, float32: (B, 64, N) and (B, 8, 64) at the paper's size."""
    grid: tuple[int, int]
    """Patches down and across; N is their product, row by row."""


class Scales(NamedTuple):
    """Inverse temperatures (0-dimensional, at most 100)."""

    caption: torch.Tensor
    prompts: torch.Tensor


class Encoded(NamedTuple):
    """What the encoders give, before the projectors and their batch norms; n images."""

    image: torch.Tensor
    """(n, width): mean of the segments; (n, G, width) where the segments themselves are wanted"""
    caption: torch.Tensor
    """(n, text_width)"""
    prompts: torch.Tensor | None
    """(n, K, text_width), or None where none were given"""


class Projected(NamedTuple):
    """Features for the losses, in the common space, not normalised."""

    image: torch.Tensor
    """(n, E)"""
    segments: torch.Tensor | None
    """(n, G, E), or None where they were not encoded"""
    caption: torch.Tensor
    """(n, E)"""
    prompts: torch.Tensor | None
    """(n, K, E), or None"""


class GroupViT(nn.Module):
    """GroupViT (Xu et al. 2022): 55,726,610 parameters at the default configuration.

    Random numbers of a training step (stochastic depth, Gumbel noise) come from the ``generator`` given
    to the call, on the images' device, or from torch's global RNG of that device where it is None.
    """

    def __init__(self, config: GroupViTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or GroupViTConfig()
        self.image_encoder = ImageEncoder(config)
        self.text_encoder = TextEncoder(config)
        self.image_projector = Projector(config.width, config.projector_hidden, config.embed_dim)
        self.text_projector = Projector(config.text_width, config.projector_hidden, config.embed_dim)
        initial = math.log(1.0 / config.init_temperature)
        self.logit_scale = nn.Parameter(torch.tensor(initial))
        self.multi_label_logit_scale = nn.Parameter(torch.tensor(initial))
        _initialise(self)

    def encode_image(
        self, images: torch.Tensor, with_maps: bool | None = None, generator: torch.Generator | None = None
    ) -> ImageFeatures:
        """Images (B, 3, H, W), H and W multiples of the patch size -> their features.

        ``with_maps`` keeps the soft assignment maps; by default in evaluation mode only.
        """
        with_maps = not self.training if with_maps is None else with_maps
        segments, maps = self.image_encoder(images, with_maps, generator)
        pooled = self.image_projector(segments.mean(dim=1))
        patch = self.config.patch_size
        return ImageFeatures(
            pooled=pooled,
            # While training, projecting the segments too would mix their statistics into the batch norm.
            segments=None if self.training else self.image_projector(segments),
            assignments=maps,
            grid=(images.shape[-2] // patch, images.shape[-1] // patch),
        )

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (..., T) int64, T at most the context length -> (..., E), not normalised."""
        features = self.text_encoder(tokens.flatten(0, -2))
        return self.text_projector(features).unflatten(0, tokens.shape[:-1])

    def encode(
        self,
        images: torch.Tensor,
        captions: torch.Tensor,
        prompts: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
        with_segments: bool = False,
    ) -> Encoded:
        """Training, first half: images (n, 3, H, W), captions (n, T), prompts (n, K, T') or None.

        No row depends on another here, so a batch may be encoded in pieces.
        """
        segments, _ = self.image_encoder(images, False, generator)
        image = segments if with_segments else segments.mean(dim=1)
        caption = self.text_encoder(captions)
        if prompts is None or prompts.shape[1] == 0:
            return Encoded(image, caption, None)
        return Encoded(
            image, caption, self.text_encoder(prompts.flatten(0, 1)).unflatten(0, prompts.shape[:2])
        )

    def project(self, encoded: Encoded) -> Projected:
        """Training, second half: into the common space, all rows of a step at once.

        Captions and prompts pass the text projector as one batch, as its batch norm needs; so do the mean and the
        segments of all images, if there are segments.
        """
        image, segments = encoded.image, None
        if image.ndim == 3:
            image = torch.cat([image.mean(dim=1, keepdim=True), image], dim=1)
        texts = encoded.caption
        if encoded.prompts is not None:
            texts = torch.cat([texts, encoded.prompts.flatten(0, 1)])
        image, texts = project_together([self.image_projector, self.text_projector], [image, texts])
        if image.ndim == 3:
            image, segments = image[:, 0], image[:, 1:]
        if encoded.prompts is None:
            return Projected(image, segments, texts, None)
        caption, prompts = texts.split([len(encoded.caption), len(texts) - len(encoded.caption)])
        return Projected(image, segments, caption, prompts.unflatten(0, encoded.prompts.shape[:2]))

    def compile_layers(self) -> None:
        """Let torch.compile write the kernels of the transformer blocks, which are most of the work.

        Block by block, not whole encoders: a block is compiled once for all of its kind, in seconds instead of
        minutes, and what draws random numbers or depends on the texts' lengths stays as it is.
        """
        for module in self.modules():
            if isinstance(module, Block):
                module.compile_layers()

    def scales(self) -> Scales:
        """The two inverse temperatures, capped at 100, float32 even under autocast."""
        capped = [
            torch.clamp(value, max=MAX_LOG_SCALE).exp()
            for value in (self.logit_scale, self.multi_label_logit_scale)
        ]
        return Scales(*capped)

    @torch.no_grad()
    def clamp_scales(self) -> None:
        """Bring both temperatures back under the cap: call after each optimiser step.

        Beyond the cap their gradient is zero and they could never come down again.
        """
        self.logit_scale.clamp_(max=MAX_LOG_SCALE)
        self.multi_label_logit_scale.clamp_(max=MAX_LOG_SCALE)


@torch.no_grad()
def with_rounded_weights(model: GroupViT, dtype: torch.dtype) -> GroupViT:
    """A copy for inference under autocast to ``dtype`` (torch.bfloat16), which then gives the same result to the bit.

    Autocast rounds the weights of all products anew in every pass: on a CPU with AMX 6 % of the time of four
    windows of 448 pixels. Here they are rounded once. Biases, norms and positions stay as they are.
    """
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.weight.data = module.weight.to(dtype)
    return copied


@torch.no_grad()
def _initialise(model: GroupViT) -> None:
    """Truncated normals of 0.02 for images, CLIP's widths-and-depth rule for texts, zero biases."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    _initialise_options(model)
    nn.init.trunc_normal_(model.image_encoder.embedding.positions, std=0.02)
    # Only the first stage's group tokens need to differ: the later ones start as functions of them.
    first = model.image_encoder.stages[0].group_tokens
    if first is not None:
        nn.init.trunc_normal_(first, std=0.02)
    text, width = model.text_encoder, model.config.text_width
    nn.init.normal_(text.tokens.weight, std=0.02)
    nn.init.normal_(text.positions, std=0.01)
    residual = width**-0.5 * (2 * len(text.blocks)) ** -0.5
    for block in text.blocks:
        attention: SelfAttention = block.attention
        nn.init.normal_(attention.qkv.weight, std=width**-0.5)
        nn.init.normal_(attention.out.weight, std=residual)
        nn.init.normal_(block.mlp.fc1.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(block.mlp.fc2.weight, std=residual)


def _initialise_options(model: GroupViT) -> None:
    """What the paper's form does not have: a convolutional stem, and an assignment scaled by the width."""
    config = model.config
    for module in model.image_encoder.modules():
        if isinstance(module, ConvolutionStem):
            for convolution in (*module.halvings, module.mix):
                nn.init.kaiming_normal_(convolution.weight)
        if isinstance(module, AssignAttention) and config.assign_gain:
            for layer in (module.q, module.k, module.v, module.out):
                nn.init.normal_(layer.weight, std=config.assign_gain * config.width**-0.5)
