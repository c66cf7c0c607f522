"""GroupViT: an image encoder that groups, a text encoder, and their common space."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from models.blocks import Block, SelfAttention
from models.groupvit_config import GroupViTConfig
from models.image_encoder import ImageEncoder
from models.projector import Projector
from models.text_encoder import TextEncoder

__all__ = ["ForwardOutput", "GroupViT", "GroupViTConfig", "ImageFeatures", "Scales"]

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


class ForwardOutput(NamedTuple):
    """Features for the losses, projected, not normalised."""

    image: torch.Tensor
    """(B, E)"""
    caption: torch.Tensor
    """(B, E)"""
    prompts: torch.Tensor | None
    """(B, K, E), or None where none were given."""


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

    def forward(
        self,
        images: torch.Tensor,
        captions: torch.Tensor,
        prompts: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> ForwardOutput:
        """Images (B, 3, H, W), captions (B, T), prompts (B, K, T') or None.

        Captions and prompts pass the text projector as one batch, as its batch norm needs.
        """
        image = self.image_projector(self.image_encoder(images, False, generator)[0].mean(dim=1))
        if prompts is None or prompts.shape[1] == 0:
            return ForwardOutput(image, self.encode_text(captions), None)
        texts = self.text_projector(self._text_features(captions, prompts.flatten(0, 1)))
        caption, prompt = texts.split([len(captions), len(texts) - len(captions)])
        return ForwardOutput(image, caption, prompt.unflatten(0, prompts.shape[:2]))

    def _text_features(self, captions: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        if captions.shape[-1] == prompts.shape[-1]:
            return self.text_encoder(torch.cat([captions, prompts]))
        return torch.cat([self.text_encoder(captions), self.text_encoder(prompts)])

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
def _initialise(model: GroupViT) -> None:
    """Truncated normals of 0.02 for images, CLIP's widths-and-depth rule for texts, zero biases."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
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
