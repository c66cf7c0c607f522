"""PASCAL Context, val: 59 classes and background."""

_base_ = "base.py"

title = "PASCAL Context"
images = 5104
other_images = (5105,)  # the list of VOC 2010, one image of which has no labels
dataset = {
    "type": "PascalContextDataset",
    "data_root": "VOCdevkit/VOC2010",
    "ann_file": "ImageSets/SegmentationContext/val.txt",
    "data_prefix": {"img_path": "JPEGImages", "seg_map_path": "SegmentationClassContext"},
    "img_suffix": ".jpg",
    "seg_map_suffix": ".png",
}
protocol = {"short_side": 448, "window": 448, "stride": 224, "background_threshold": 0.35}
prepare = "python -m evaluation.convert context"
