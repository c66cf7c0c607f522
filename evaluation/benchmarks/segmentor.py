"""GroupViT as a segmentor of mmsegmentation, for its test loop: several images of any sizes at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import evaluation.benchmarks.mmseg_import  # noqa: F401  (before mmseg)

# isort: split
import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.structures import PixelData
from mmseg.models import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from evaluation.protocol import Protocol, best_classes, class_texts, slide_images
from models.groupvit import GroupViT, with_rounded_weights
from models.pixels import normalise

__all__ = ["GroupViTSegmentor", "PixelPreprocessor"]


@MODELS.register_module()
class PixelPreprocessor(BaseDataPreprocessor):
    """uint8 BGR images (3, H, W) -> normalised RGB on the model's device, each at its own size."""

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """mmengine's interface: ``inputs`` is a list of images and stays one."""
        data = self.cast_data(data)
        images = [normalise(image.permute(1, 2, 0).flip(-1)[None])[0] for image in data["inputs"]]
        return {**data, "inputs": images}


@MODELS.register_module()
class GroupViTSegmentor(BaseSegmentor):
    """Zero-shot segmentation by evaluation.protocol; the class texts are encoded once, here.

    Args:
        groupvit: the model, in evaluation mode; not changed.
        prompts: class names as the prompts say them, without the background.
        protocol: sizes, windows, threshold.
        max_windows: at most so many windows pass the model at once.
        dtype: what the model computes in, if not in that of its weights.
    """

    def __init__(
        self,
        groupvit: GroupViT,
        prompts: Sequence[str],
        protocol: Protocol,
        max_windows: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(data_preprocessor=PixelPreprocessor())
        self.groupvit = groupvit if dtype is None else with_rounded_weights(groupvit, dtype)
        self.protocol = protocol
        self.max_windows = max_windows
        self.dtype = dtype
        self.register_buffer("texts", class_texts(groupvit, prompts, protocol.template), persistent=False)

    def predict(
        self, inputs: list[torch.Tensor], data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Normalised images -> samples with ``pred_sem_seg`` (1, H, W) int64 at the original size.

        Samples that are marked unreadable are not looked at: all their pixels get class 0.
        """
        samples = data_samples or [SegDataSample(metainfo={"ori_shape": x.shape[-2:]}) for x in inputs]
        readable = [number for number, sample in enumerate(samples) if "unreadable" not in sample.metainfo]
        scores = self.extract_feat([inputs[number] for number in readable])
        for number, sample in enumerate(samples):
            size = tuple(sample.ori_shape[:2])
            label = best_classes(next(scores), size) if number in readable else self._nothing(size)
            sample.pred_sem_seg = PixelData(data=label[None])
        return samples

    def extract_feat(self, inputs: list[torch.Tensor]) -> Any:
        """Class scores image by image, an iterator of ImageScores."""
        return slide_images(self.groupvit, inputs, self.texts, self.protocol, self.max_windows, self.dtype)

    def encode_decode(self, inputs: list[torch.Tensor], batch_data_samples: Any = None) -> list[torch.Tensor]:
        """Class scores of all images, (C, H, W) each, at the size they have after resizing."""
        count = len(self.texts) + (self.protocol.background_threshold is not None)
        return [scores.dense(count) for scores in self.extract_feat(inputs)]

    def _forward(self, inputs: list[torch.Tensor], data_samples: Any = None) -> list[torch.Tensor]:
        return self.encode_decode(inputs, data_samples)

    def loss(self, inputs: Any, data_samples: Any) -> dict[str, torch.Tensor]:
        """GroupViT is not trained on masks."""
        raise NotImplementedError("training is training.train's; this segmentor only tests")

    def _nothing(self, size: tuple[int, ...]) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.int64, device=self.texts.device)
