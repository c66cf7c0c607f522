"""ImageNet-S-300, validation: 300 classes and background; masks hold R + 256 G, 1000 is ignored."""

_base_ = "base.py"

title = "ImageNet-S-300"
images = 4097
dataset = {
    "type": "ImageNetSDataset",
    "count": 300,
    "data_root": "ImageNetS300",
    "data_prefix": {"img_path": "validation", "seg_map_path": "validation-segmentation"},
    "img_suffix": ".JPEG",
    "seg_map_suffix": ".png",
}
protocol = {"short_side": 448, "window": 448, "stride": 224, "background_threshold": 0.75}
ignore_index = 1000
wide_masks = True
