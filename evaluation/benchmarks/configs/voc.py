"""PASCAL VOC 2012, val: 20 classes and background."""

_base_ = "base.py"

title = "PASCAL VOC"
images = 1449
dataset = {
    "type": "PascalVOCDataset",
    "data_root": "VOCdevkit/VOC2012",
    "ann_file": "ImageSets/Segmentation/val.txt",
    "data_prefix": {"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"},
    "img_suffix": ".jpg",
    "seg_map_suffix": ".png",
}
protocol = {"short_side": 448, "window": 448, "stride": 224, "background_threshold": 0.95}
