"""What the benchmarks share; evaluation.benchmarks.catalogue adds what depends on the command line."""

default_scope = "mmseg"
ignore_index = 255
prepare = ""
other_images = ()
other_mask_suffixes = ()
wide_masks = False
test_dataloader = {
    "batch_size": 1,
    "num_workers": 0,
    "persistent_workers": False,
    "sampler": {"type": "DefaultSampler", "shuffle": False, "round_up": False},
    "collate_fn": {"type": "pseudo_collate"},
}
test_evaluator = {"type": "ClassIoUMetric"}
test_cfg = {"type": "TestLoop"}
