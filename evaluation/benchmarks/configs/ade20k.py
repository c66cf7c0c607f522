"""ADE20K, validation: 150 classes, no background."""

_base_ = "base.py"

title = "ADE20K"
images = 2000
dataset = {
    "type": "ADE20KDataset",
    "data_root": "ade/ADEChallengeData2016",
    "data_prefix": {"img_path": "images/validation", "seg_map_path": "annotations/validation"},
    "img_suffix": ".jpg",
    "seg_map_suffix": ".png",
}
protocol = {"short_side": 512, "window": 224, "stride": 112, "background_threshold": None}
