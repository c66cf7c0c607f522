"""COCO-Stuff 164k, val2017: 171 things and stuff, no background."""

_base_ = "base.py"

title = "COCO-Stuff"
images = 5000
dataset = {
    "type": "COCOStuffDataset",
    "data_root": "coco_stuff164k",
    "data_prefix": {"img_path": "images/val2017", "seg_map_path": "annotations/val2017"},
    "img_suffix": ".jpg",
    "seg_map_suffix": "_labelTrainIds.png",
}
protocol = {"short_side": 512, "window": 224, "stride": 112, "background_threshold": None}
prepare = "python -m evaluation.convert coco-stuff"
