"""The one typed configuration of all entries.

Each dataclass is a section of the YAML files in this folder; field metadata ``help`` is what ``--help``
prints. Loading, overrides and checks are in :mod:`configs.loading`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from configs.experiment import ExperimentConfig
from configs.options import option as _option
from configs.training import TrainConfig

__all__ = [
    "ArchivesConfig",
    "ClipConfig",
    "CocuConfig",
    "ConceptsConfig",
    "CorpusConfig",
    "DuplicatesConfig",
    "EmbedConfig",
    "ExportConfig",
    "FilterConfig",
    "IndexConfig",
    "IngestConfig",
    "PlanConfig",
    "ReportConfig",
    "SparkConfig",
]


@dataclass
class CorpusConfig:
    """One source of image-caption pairs."""

    name: str = _option("", "short name; becomes the first part of every key")
    format: str = _option(
        "webdataset", "webdataset | parquet | files (img2dataset) | table (CSV/TSV) | yfcc14m | embeddings"
    )
    path: str = _option(
        "", "shards: braces and globs allowed ({00000..00331}.tar, part-*.parquet), or a folder"
    )
    image_root: str = _option("", "table and yfcc14m: folder (or zips) the image paths are relative to")
    image_column: str = _option(
        "image",
        "table, parquet: column with the image path or bytes (or base64, data: URLs); webdataset, files: suffix of images",
    )
    caption_column: str = _option(
        "caption", "column with the caption; webdataset, files: suffix of captions, or key of the JSON"
    )
    key_column: str = _option("", "embeddings: column with the sample's key; empty: the row number")
    metadata: str = _option(
        "", "embeddings: metadata files (.parquet, .jsonl, .csv, .tsv), paired with those of path by number"
    )


@dataclass
class IngestConfig:
    """Decode-check, turn, resize and store every pair once."""

    short_side: int = _option(256, "images are scaled down until their short side has this many pixels")
    jpeg_quality: int = _option(95, "quality of the stored JPEG")
    max_pixels: int = _option(64_000_000, "larger images are rejected before they are decoded")
    max_image_bytes: int = _option(40_000_000, "larger image files are rejected before they are read")
    min_caption_chars: int = _option(3, "shorter captions are rejected")
    max_caption_chars: int = _option(4096, "longer captions are cut to this many characters")
    image_seconds: float = _option(20.0, "time limit for one image; slower ones are rejected")
    columns: list[str] = _option(
        [],
        "columns of the source (webdataset, files: keys of the JSON) that go along as text: [url, license, uid]",
    )
    rows_per_part: int = _option(2500, "pairs in a part file, the unit of all later work")
    threads: int = _option(0, "decoding threads a task; 0: the cores of the task")


@dataclass
class ClipConfig:
    """The frozen CLIP model that embeds images and concepts."""

    name: str = _option("ViT-B-16", "open_clip model name, or path of a model-config JSON")
    pretrained: str = _option(
        "openai", "open_clip pretrained tag, or path of a local checkpoint (.safetensors, .pt)"
    )
    precision: str = _option(
        "auto",
        "auto | fp32 | bf16 | fp16 (auto: bf16 on GPU and on CPU with AMX, else fp32; embed_images refuses hosts that differ)",
    )
    prompt: str = _option("a photo of a {}", "text whose embedding stands for a concept")


@dataclass
class EmbedConfig:
    """Image embeddings."""

    text_score: bool = _option(
        False,
        "embed the captions, too, and store each pair's cosine as image_text_score (for filters.min_score)",
    )
    batch_size: int = _option(0, "images a forward pass; 0: 256 on GPU, 64 on CPU")
    threads: int = _option(0, "decoding threads a task; 0: the cores of the task")


@dataclass
class FilterConfig:
    """Which pairs are curated; from mine_concepts on, the steps obey (see select_pairs)."""

    min_score: float = _option(
        -1.0, "least cosine of image and caption (needs embed.text_score=true); -1: any"
    )
    min_side: int = _option(0, "least pixels of the short side, as stored")
    max_aspect: float = _option(0.0, "the long side is at most so many times the short one; 0: any")
    languages: list[str] = _option(
        [], "captions in these languages: [en, de]; needs the package py3langid; empty: any"
    )
    language_share: float = _option(
        0.2,
        "a caption goes where the detector gives the languages together less than this (it errs on short ones)",
    )
    uids: list[str] = _option(
        [], "lists of what stays: DataComp's .npy of uids, or Parquet with a column uid; empty: any"
    )
    uid_column: str = _option("uid", "column of pairs with the uid (see ingest.columns)")
    duplicates: str = _option(
        "keep", "keep | one: of each group of near-duplicate images (see find_duplicates) only one stays"
    )
    show: bool = _option(False, "only print what each filter would remove")

    @property
    def active(self) -> bool:
        """Whether any filter is set."""
        return self.pairwise or self.one_of_each

    @property
    def pairwise(self) -> bool:
        """Whether any filter is set that looks at one pair alone."""
        return self.min_score > -1 or bool(self.min_side or self.max_aspect or self.languages or self.uids)

    @property
    def one_of_each(self) -> bool:
        """Whether one of each group of near-duplicates is kept."""
        return self.duplicates == "one"

    @property
    def settings(self) -> dict[str, Any]:
        """What decides which pairs are selected; selections of before there was `duplicates` stay what they are."""
        unused = ("show",) if self.one_of_each else ("show", "duplicates")
        return {name: value for name, value in vars(self).items() if name not in unused}


@dataclass
class DuplicatesConfig:
    """Groups of near-duplicate images (see find_duplicates, filters.duplicates)."""

    similarity: float = _option(
        0.96, "images whose embeddings have a cosine above this are copies; copies of copies are of one group"
    )


@dataclass
class ConceptsConfig:
    """The concept vocabulary and where it is found in captions."""

    vocabulary: str = _option("", "text file with one concept a line; empty: mined from the captions")
    embeddings: str = _option(
        "", ".npy (n, d) with the text embeddings of the vocabulary file's lines; empty: computed by CLIP"
    )
    min_count: int = _option(20, "a mined concept occurs in at least this many captions")
    max_concepts: int = _option(100_000, "keep the most frequent")
    max_words: int = _option(4, "longest noun phrase, in words")
    stop_words: str = _option("", "text file with words that are never concepts, besides the built-in list")
    hold_out: list[str] = _option(
        [], "words, or names of benchmarks (voc, ade20k, ...), that must not enter the vocabulary"
    )
    merge: str = _option("none", "none | synonyms (two words for one thing become the more frequent one)")


@dataclass
class IndexConfig:
    """The retrieval corpus and its FAISS index."""

    corpora: list[str] = _option([], "corpora that are searched; empty: all")
    kind: str = _option("auto", "auto | flat | ivf")
    memory_gb: float = _option(
        8.0, "what a host may give to the vectors that are searched at a time; a larger index is split"
    )
    nlist: int = _option(0, "inverted lists; 0: from the number of rows")
    nprobe: int = _option(0, "lists visited by a query; 0: the fewest that reach target_recall")
    target_recall: float = _option(0.99, "recall@L against exact search that nprobe is chosen for")
    train_rows: int = _option(0, "sample that the index is trained on; 0: 48 a list")
    recall_queries: int = _option(500, "queries of the recall measurement")


@dataclass
class ArchivesConfig:
    """Expansion, ranking and clusters (paper, section 3.2)."""

    corpora: list[str] = _option([], "corpora to curate; empty: all")
    neighbours: int | str = _option(
        "auto", "L: retrieved images a pair; auto: 8 for paper and compat, 128 for calibrated"
    )
    top: int = _option(32, "A: concepts kept in an archive")
    ranking: str = _option("calibrated", "calibrated | paper | compat")
    candidates: str = _option(
        "auto",
        "what is ranked: neighbours (concepts of their captions) | vocabulary (and what the probe finds in the "
        "whole vocabulary) | auto: vocabulary for calibrated",
    )
    include_anchor: bool = _option(False, "let an image retrieve itself (the released code does)")
    duplicate_similarity: float | None = _option(
        None,
        "neighbours of which one is a copy of another (their cosine is above this, e.g. 0.96) count once; null: each counts",
    )
    z_weight: float = _option(
        0.4, "calibrated: weight of what CLIP says of the image against the neighbours' votes"
    )
    cosine_weight: float = _option(
        18.0, "calibrated: weight of CLIP's cosine as it is, beside how it compares with the concept's usual"
    )
    vote_temperature: float = _option(
        7.0, "calibrated: neighbours vote with exp(temperature x (s - s_max)), s of centred vectors"
    )
    probe_weight: float = _option(
        0.6, "calibrated: weight of the probe against the neighbours' votes, 0 to 1"
    )
    clusters: bool = _option(True, "group an archive's concepts for cluster-guided sampling")
    batch_size: int = _option(1024, "pairs ranked at a time")
    device: str = _option("auto", "auto | cpu | gpu: where the search runs")
    refresh: str = _option(
        "new",
        "after pairs were added: new (rank theirs alone) | all (rank old pairs, too, against the larger index)",
    )

    @property
    def retrieved(self) -> int:
        """L: ``neighbours``, or what ``auto`` stands for."""
        if self.neighbours == "auto":
            return 128 if self.ranking == "calibrated" else 8
        return int(self.neighbours)

    @property
    def searched(self) -> int:
        """Neighbours that are looked for: twice ``retrieved`` where copies among them count once."""
        return self.retrieved * (1 if self.duplicate_similarity is None else 2)

    @property
    def proposals(self) -> int:
        """Concepts that the probe adds to the neighbours': four times what is kept, so that the cut matters little."""
        wanted = (
            self.ranking == "calibrated" if self.candidates == "auto" else self.candidates == "vocabulary"
        )
        return max(128, 4 * self.top) if wanted else 0


@dataclass
class ExportConfig:
    """The training set."""

    archive_length: int = _option(16, "A': archive columns have this fixed length")
    row_group_rows: int = _option(256, "rows a row group: the grain of shuffling and of sharing among ranks")
    webdataset: bool = _option(
        False,
        "also write webdataset shards with the three-part text, one a part of ingest.rows_per_part pairs",
    )
    open_clip: bool = _option(
        False, "also write webdataset shards for open_clip's trainer: caption as text, archive as JSON"
    )
    hugging_face: bool = _option(False, "also write a data set for Hugging Face's load_dataset, with a card")


@dataclass
class ReportConfig:
    """The HTML report."""

    samples: int = _option(24, "pairs in the gallery")
    seed: int = _option(0, "which pairs")
    truth: str = _option("", "demo: JSON lines with the generated truth (key, labels)")


@dataclass
class PlanConfig:
    """What `--plan` computes with."""

    slots: int = _option(
        0, "tasks that will run at once; 0: those of spark.master=local[N], or this machine's cores"
    )
    measured: str = _option(
        "", "workspace whose rates and sizes are used, e.g. of a run with limit=1000; empty: this one's own"
    )
    rates: dict[str, float] = _option(
        {}, "rows a second of one slot, by job, e.g. plan.rates.embed_images=7; go before measured ones"
    )


@dataclass
class SparkConfig:
    """The Spark session; anything else goes through ``conf`` or spark-submit's own options."""

    master: str = _option(
        "",
        "local[N] or spark://...; --master of spark-submit wins, and must name yarn and k8s://; empty: local[*]",
    )
    app_name: str = _option("cocu", "application name")
    driver_memory: str = _option("2g", "only used when the session is started here, not by spark-submit")
    units_per_wave: int = _option(0, "units committed together; 0: eight times the task slots, at least 32")
    max_failed_units: int = _option(
        0, "so many units of a table may fail before it stays incomplete; their rows count as rejects"
    )
    processes: int = _option(0, "train_on_spark: training processes; 0: one a task slot")
    conf: dict[str, str] = _option({}, "further Spark properties")


@dataclass
class CocuConfig:
    """Everything."""

    workspace: str = _option("", "folder of all tables: local path, hdfs://, s3a://, gs:// or abfss://")
    overwrite: Any = _option(
        False,
        "true: replace what was built from something else; [archives,...]: build these again, replace no other",
    )
    limit: int = _option(
        0, "only the first so many pairs of each corpus, in a workspace of its own: WORKSPACE-first-N; 0: all"
    )
    verify: bool = _option(
        False, "read every file of complete tables, and do again the units of which one is lost or damaged"
    )
    corpora: list[CorpusConfig] = field(default_factory=list, metadata={"help": "the sources"})
    ingest: IngestConfig = field(default_factory=IngestConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    filters: FilterConfig = field(default_factory=FilterConfig)
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    concepts: ConceptsConfig = field(default_factory=ConceptsConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    archives: ArchivesConfig = field(default_factory=ArchivesConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    spark: SparkConfig = field(default_factory=SparkConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    experiment: ExperimentConfig = field(default_factory=ExperimentConfig)
