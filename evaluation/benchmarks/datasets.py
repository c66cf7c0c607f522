"""What mmsegmentation lacks: COCO Object, ImageNet-S, one's own classes, and transforms that name a bad file.

An image or mask that cannot be used becomes a sample of which every pixel is ignored, with the reason in its
metadata as ``unreadable``; the metric counts and names it, and the rest of the evaluation goes on.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import evaluation.benchmarks.mmseg_import  # noqa: F401  (before mmseg)

# isort: split
import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets import BaseSegDataset, COCOStuffDataset
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image, UnidentifiedImageError

from configs.errors import UserError
from evaluation.class_names import BACKGROUND, imagenet_s_names
from evaluation.mask_files import decode_mask
from evaluation.photos import FORMATS, read_picture

__all__ = ["COCOObjectDataset", "FolderDataset", "ImageNetSDataset", "LoadImage", "LoadMask", "read_image"]

_THINGS = 80
_TAIL_BYTES = 4096
_END_MARK = b"\xff\xd9"  # of a JPEG
_DECODE_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError, cv2.error, UserError)


@DATASETS.register_module()
class COCOObjectDataset(BaseSegDataset):
    """COCO's 80 things as masks 1..80 in the order of their ids; 0 is everything else."""

    METAINFO: ClassVar[dict[str, Any]] = {
        "classes": (BACKGROUND, *COCOStuffDataset.METAINFO["classes"][:_THINGS])
    }


@DATASETS.register_module()
class ImageNetSDataset(BaseSegDataset):
    """ImageNet-S with its first ``count`` (50 or 300) classes; masks are wide integers, 1000 is ignored."""

    def __init__(self, count: int, **options: Any) -> None:
        super().__init__(metainfo={"classes": (BACKGROUND, *imagenet_s_names(count))}, **options)


@DATASETS.register_module()
class FolderDataset(BaseSegDataset):
    """One's own images and masks, found by evaluation.benchmarks.layout; the classes come with ``metainfo``.

    Args:
        files: (image, mask) of each sample.
        **options: of BaseSegDataset.
    """

    def __init__(self, files: Sequence[tuple[str, str]], **options: Any) -> None:
        self.files = files
        super().__init__(**options)

    def load_data_list(self) -> list[dict[str, Any]]:
        """mmseg's interface: one dictionary a sample."""
        rules = {"label_map": self.label_map, "reduce_zero_label": self.reduce_zero_label}
        return [
            {"img_path": image, "seg_map_path": mask, "seg_fields": [], **rules} for image, mask in self.files
        ]


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Reads ``img_path`` to ``img``, uint8 (H, W, 3) BGR, as mmcv's loader does, or says why it cannot.

    OpenCV fills what a cut file lacks with grey and says nothing, so files without an end mark are
    decoded a second time by Pillow, which refuses them.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """mmcv's interface: sample in, sample out."""
        try:
            results["img"] = read_image(results["img_path"])
        except _DECODE_ERRORS as error:
            results["unreadable"] = f"{results['img_path']}: {_reason(error)}"
            results["img"] = np.zeros((1, 1, 3), np.uint8)
        results["img_shape"] = results["ori_shape"] = results["img"].shape[:2]
        return results


@TRANSFORMS.register_module()
class LoadMask(BaseTransform):
    """Reads ``seg_map_path`` to ``gt_seg_map`` int64 (H, W), with mmseg's zero and label rules, checked.

    Args:
        classes: ids from 0 to ``classes`` - 1 are allowed, after the rules.
        ignore_index: the id left out of account, also allowed.
        wide: RGB masks hold R + 256 G.
    """

    def __init__(self, classes: int, ignore_index: int = 255, wide: bool = False) -> None:
        self.classes = classes
        self.ignore_index = ignore_index
        self.wide = wide

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """mmcv's interface: sample in, sample out."""
        mask = None
        if "unreadable" not in results:
            try:
                mask = self._read(results)
            except _DECODE_ERRORS as error:
                results["unreadable"] = f"{results['seg_map_path']}: {_reason(error)}"
        if mask is None:
            mask = np.full(results["ori_shape"], self.ignore_index, np.int64)
        results["gt_seg_map"] = mask
        results["seg_fields"].append("gt_seg_map")
        return results

    def _read(self, results: dict[str, Any]) -> np.ndarray:
        mask = decode_mask(Path(results["seg_map_path"]).read_bytes(), self.wide)
        if mask.shape != tuple(results["ori_shape"]):
            sizes = f"{mask.shape[1]} x {mask.shape[0]}, its image {results['ori_shape'][1]} x {results['ori_shape'][0]}"
            raise ValueError(f"the mask has {sizes} pixels")
        if results["reduce_zero_label"]:
            mask = np.where((mask == 0) | (mask == self.ignore_index), self.ignore_index, mask - 1)
        if results.get("label_map") is not None:
            mask = _mapped(mask, results["label_map"])
        wrong = mask[((mask < 0) | (mask >= self.classes)) & (mask != self.ignore_index)]
        if wrong.size:
            found = ", ".join(map(str, np.unique(wrong)[:5]))
            raise ValueError(f"the mask has ids {found}, and the benchmark {self.classes} classes")
        return mask


def read_image(path: str) -> np.ndarray:
    """uint8 (H, W, 3) BGR: a JPEG as mmsegmentation decodes it, another format by Pillow.

    OpenCV alone would choose among its decoders by content, old ones of JPEG 2000 and TIFF among them.

    Raises:
        OSError, ValueError, SyntaxError, UserError: it cannot be read.
    """
    content = Path(path).read_bytes()
    if not content:
        raise ValueError("the file is empty")
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if image.format != "JPEG":
            return np.ascontiguousarray(read_picture(path)[..., ::-1])
        if _END_MARK not in content[-_TAIL_BYTES:]:
            image.load()
    image = mmcv.imfrombytes(content, flag="color", backend="cv2")
    if image is None:
        raise ValueError("not an image that OpenCV can decode")
    return image


def _mapped(mask: np.ndarray, label_map: dict[int, int]) -> np.ndarray:
    """Old ids to new ones; ids that the map does not know stay."""
    table = np.arange(max(int(mask.max(initial=0)), *label_map) + 1)
    table[list(label_map)] = list(label_map.values())
    return table[mask]


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file is gone"
    if isinstance(error, UnidentifiedImageError):  # whose own words hold an address in memory
        return "not an image"
    return " ".join(str(error).split())[:160] or type(error).__name__
