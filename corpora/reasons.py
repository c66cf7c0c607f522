"""The closed list of reasons for which a sample is rejected, with a sentence on each."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["EXPLANATIONS", "Reason"]


class Reason(StrEnum):
    """Column `reason` of the rejects."""

    UNREADABLE_SHARD = "unreadable_shard"
    TRUNCATED_SHARD = "truncated_shard"
    NO_SAMPLE = "no_sample"
    SCATTERED_SAMPLE = "scattered_sample"
    DUPLICATE_KEY = "duplicate_key"
    MALFORMED_ROW = "malformed_row"
    PATH_OUTSIDE = "path_outside"
    MISSING_IMAGE = "missing_image"
    EMPTY_IMAGE = "empty_image"
    IMAGE_TOO_BIG = "image_too_big"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_FEW_PIXELS = "too_few_pixels"
    UNREADABLE_IMAGE = "unreadable_image"
    TRUNCATED_IMAGE = "truncated_image"
    UNSUPPORTED_MODE = "unsupported_mode"
    IMAGE_TIMEOUT = "image_timeout"
    MISSING_CAPTION = "missing_caption"
    SHORT_CAPTION = "short_caption"
    CAPTION_NOT_UTF8 = "caption_not_utf8"
    OUT_OF_GPU_MEMORY = "out_of_gpu_memory"
    EMBEDDING_NOT_FINITE = "embedding_not_finite"
    LOW_SCORE = "low_score"
    SMALL_IMAGE = "small_image"
    LONG_IMAGE = "long_image"
    OTHER_LANGUAGE = "other_language"
    NOT_LISTED = "not_listed"
    DUPLICATE_IMAGE = "duplicate_image"
    UNIT_FAILED = "unit_failed"


EXPLANATIONS: dict[Reason, str] = {
    Reason.UNREADABLE_SHARD: "the shard, or a part of it, cannot be opened or is not of the corpus' format",
    Reason.TRUNCATED_SHARD: "the shard ends early or is damaged; samples before that point are kept",
    Reason.NO_SAMPLE: "files of the shard that belong to no sample, or a shard without any; one row a shard",
    Reason.SCATTERED_SAMPLE: "image and caption do not follow each other in the archive",
    Reason.DUPLICATE_KEY: "the shard has another sample of this name; the first one counts",
    Reason.MALFORMED_ROW: "the line is no row of the table: too few columns, an open quote, or endless",
    Reason.PATH_OUTSIDE: "the image's path leads out of corpora[].image_root",
    Reason.MISSING_IMAGE: "a caption without an image (img2dataset: a failed download)",
    Reason.EMPTY_IMAGE: "an image of zero bytes",
    Reason.IMAGE_TOO_BIG: "the file is larger than ingest.max_image_bytes",
    Reason.TOO_MANY_PIXELS: "more pixels than ingest.max_pixels, found in the header, before decoding",
    Reason.TOO_FEW_PIXELS: "fewer than 64 pixels, as 1x1 placeholders have",
    Reason.UNREADABLE_IMAGE: "the bytes are no image (often an HTML error page), or a damaged one",
    Reason.TRUNCATED_IMAGE: "the image's data end early",
    Reason.UNSUPPORTED_MODE: "a pixel format that has no defined way to RGB",
    Reason.IMAGE_TIMEOUT: "decoding took longer than ingest.image_seconds",
    Reason.MISSING_CAPTION: "no caption",
    Reason.SHORT_CAPTION: "fewer characters than ingest.min_caption_chars",
    Reason.CAPTION_NOT_UTF8: "the caption is not UTF-8",
    Reason.OUT_OF_GPU_MEMORY: "the image alone does not fit the GPU's memory",
    Reason.EMBEDDING_NOT_FINITE: "the embedding has NaN or infinite values, or is zero",
    Reason.LOW_SCORE: "image and caption are less alike than filters.min_score",
    Reason.SMALL_IMAGE: "the short side has fewer pixels than filters.min_side",
    Reason.LONG_IMAGE: "the long side is more than filters.max_aspect times the short one",
    Reason.OTHER_LANGUAGE: "the caption is in none of filters.languages",
    Reason.NOT_LISTED: "the pair's uid is in none of filters.uids",
    Reason.DUPLICATE_IMAGE: "a near-duplicate of another pair's image, which stands for both (filters.duplicates=one)",
    Reason.UNIT_FAILED: "its unit failed, and spark.max_failed_units let the table do without (the manifest says why)",
}
