"""PASCAL VOC 2012, val, without background: its pixels are ignored (later papers' VOC20)."""

_base_ = "base.py"

title = "PASCAL VOC20"
images = 1449
# a subset of the data set's classes: mmseg ignores the pixels of the others
_VOC20 = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip
dataset = {
    "type": "PascalVOCDataset",
    "data_root": "VOCdevkit/VOC2012",
    "ann_file": "ImageSets/Segmentation/val.txt",
    "data_prefix": {"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"},
    "img_suffix": ".jpg",
    "seg_map_suffix": ".png",
    "metainfo": {"classes": _VOC20},
}
protocol = {"short_side": 448, "window": 448, "stride": 224, "background_threshold": None}
