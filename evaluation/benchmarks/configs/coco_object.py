"""COCO Object, val2017: COCO's 80 things, everything else background."""

_base_ = "base.py"

title = "COCO Object"
images = 5000
dataset = {
    "type": "COCOObjectDataset",
    "data_root": "coco_stuff164k",
    "data_prefix": {"img_path": "images/val2017", "seg_map_path": "annotations/val2017"},
    "img_suffix": ".jpg",
    "seg_map_suffix": "_objectTrainIds.png",
}
protocol = {"short_side": 448, "window": 448, "stride": 224, "background_threshold": 0.95}
other_mask_suffixes = ("_instanceTrainIds.png",)  # GroupViT's converter
prepare = "python -m evaluation.convert coco-object"
