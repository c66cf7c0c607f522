"""ImageNet-S-50, validation: 50 classes and background; masks hold R + 256 G, 1000 is ignored."""

_base_ = "base.py"

title = "ImageNet-S-50"
images = 752
dataset = {
    "type": "ImageNetSDataset",
    "count": 50,
    "data_root": "ImageNetS50",
    "data_prefix": {"img_path": "validation", "seg_map_path": "validation-segmentation"},
    "img_suffix": ".JPEG",
    "seg_map_suffix": ".png",
}
protocol = {"short_side": 448, "window": 448, "stride": 224, "background_threshold": 0.95}
ignore_index = 1000
wide_masks = True
