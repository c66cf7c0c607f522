"""The ``train`` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from configs.options import option
from configs.validation import ValidateConfig

__all__ = ["TrainConfig"]


@dataclass
class TrainConfig:
    """GroupViT training (paper, section 4.1; GroupViT, section 4). Rates are for a global batch of 4096."""

    output: str = option("", "folder of checkpoints, TensorBoard and pictures; empty: <workspace>/training")
    model: str = option("paper", "size of GroupViT: paper | small | demo | tiny")
    model_options: dict[str, Any] = option(
        {},
        "values of GroupViTConfig other than the model's, e.g. {stem: convolution, assign_gain: 1.5, image_size: 64}",
    )
    init: str = option(
        "", "weight file to start from, path or address (training or models.hf wrote it); empty: random"
    )
    resume: str = option(
        "auto", "auto: go on from <output>/last.pt if there is one | never | path or address of a checkpoint"
    )
    epochs: int = option(30, "passes over the training set")
    batch_size: int = option(256, "rows of one process in a step; the global batch is this x processes")
    accumulate: int = option(
        1, "pieces a step is computed in to save memory; the contrastive batch stays whole"
    )
    sampling: str = option(
        "cluster", "texts beside the caption: cluster | top | caption-nouns (the GroupViT baseline) | none"
    )
    prompts: int = option(3, "K: concept prompts an image a step")
    temperature: float = option(0.5, "softmax temperature of the concept draws; lower: truer, less varied")
    reduction: str = option(
        "log_sum",
        "multi-label loss: log_sum (paper) | mean_log (released code) | each (a prompt against the negatives alone)",
    )
    negatives: str = option(
        "all",
        "other images' prompts: all (paper) | same-concept (none that names what an own prompt names) | archive (none "
        "that an image's archive or caption knows)",
    )
    known: int = option(
        0,
        "negatives=archive: so many of an archive's best concepts count as known to its image; 0: all of them",
    )
    match: str = option(
        "pooled",
        "prompts are matched to: pooled (the mean of the segments, paper) | segments | both | compete (both, and the "
        "segments of an image share its prompts out among each other)",
    )
    multi_label_weight: float = option(1.0, "weight of the multi-label loss")
    augment: str = option("recipe", "recipe (crop, flip, RandAugment, erasing) | light (crop, flip) | none")
    lr: float = option(1.6e-3, "peak learning rate at a global batch of 4096; scaled linearly")
    min_lr: float = option(4e-5, "last learning rate, scaled the same")
    warmup_lr: float = option(4e-6, "first learning rate, scaled the same")
    warmup_epochs: float = option(2.0, "epochs of linear warm-up")
    weight_decay: float = option(0.05, "AdamW's, except for biases and one-dimensional weights")
    clip_norm: float = option(5.0, "largest norm of the gradient; 0: no clipping")
    seed: int = option(0, "of initial weights, order, augmentation, texts and noise")
    reader: str = option(
        "auto",
        "auto (Petastorm where it is installed, else arrow) | petastorm | arrow (pyarrow.dataset; the same rows)",
    )
    shuffle_groups: int = option(16, "row groups whose rows are shuffled together; more costs memory")
    workers: int = option(-1, "decoding processes a training process; -1: its share of the cores, 0: none")
    prefetch: int = option(4, "batches prepared ahead")
    bad_images: str = option(
        "replace", "a JPEG in the table that does not decode: replace (grey, counted) | stop"
    )
    device: str = option("auto", "auto | cpu | cuda")
    precision: str = option(
        "auto",
        "auto (bf16 on GPUs; on CPUs what is faster in a few passes before the first step) | fp32 | bf16",
    )
    compile: bool = option(False, "torch.compile the transformer blocks (needs g++ on CPU, Triton on GPU)")
    threads: int = option(
        0, "torch threads a process on CPU; 0: its share of the cores, at most OMP_NUM_THREADS"
    )
    nonfinite: str = option("skip", "a loss or gradient that is no number: skip the step | stop")
    max_skipped: int = option(50, "stop after this many skipped steps in a row")
    save_steps: int = option(1000, "steps between checkpoints; one is also written at the end of each epoch")
    validate: ValidateConfig = field(default_factory=ValidateConfig)
    held_out: int | float | str = option(
        "auto",
        "share of the row groups that is never trained on and whose loss is taken with each validation; auto: 1 % (at "
        "most 40 groups) where that is a group, else none",
    )
    keep: int = option(3, "newest checkpoints kept, besides best.pt")
    commit_steps: int = option(50, "elastic: steps between commits, the most that a lost worker costs")
    log_steps: int = option(20, "steps between lines of the log")
    pictures: int = option(8, "images whose grouping maps are drawn after each epoch")
