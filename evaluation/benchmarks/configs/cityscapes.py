"""Cityscapes, val: 19 classes, no background."""

_base_ = "base.py"

title = "Cityscapes"
images = 500
dataset = {
    "type": "CityscapesDataset",
    "data_root": "cityscapes",
    "data_prefix": {"img_path": "leftImg8bit/val", "seg_map_path": "gtFine/val"},
    "img_suffix": "_leftImg8bit.png",
    "seg_map_suffix": "_gtFine_labelTrainIds.png",
}
protocol = {"short_side": 1024, "window": 448, "stride": 224, "background_threshold": None}
prepare = "mmsegmentation's tools/dataset_converters/cityscapes.py"
