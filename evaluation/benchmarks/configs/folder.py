"""One's own data in PASCAL VOC's layout, with one's own classes (--classes); sizes follow the model's."""

_base_ = "base.py"

title = "Own data"
images = None
dataset = {
    "type": "FolderDataset",
    "data_root": "VOCdevkit/VOC2012",
    "ann_file": "ImageSets/Segmentation/val.txt",
    "data_prefix": {"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"},
    "img_suffix": ".jpg",
    "seg_map_suffix": ".png",
}
protocol = {"short_side": 448, "window": 448, "stride": 224, "background_threshold": None}
