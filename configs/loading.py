"""Loads the YAML configuration with overrides and checks it before anything heavy starts."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from configs.errors import UserError
from configs.overwrite import check_overwrite
from configs.paths import expand_home
from configs.schema import ArchivesConfig, CocuConfig
from configs.text_files import read_text
from configs.training import TrainConfig
from configs.validation import parse_every

__all__ = ["describe_options", "load_config", "to_plain"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "clip.precision": ("auto", "fp32", "bf16", "fp16"),
    "filters.duplicates": ("keep", "one"),
    "concepts.merge": ("none", "synonyms"),
    "index.kind": ("auto", "flat", "ivf"),
    "archives.ranking": ("calibrated", "paper", "compat"),
    "archives.candidates": ("auto", "neighbours", "vocabulary"),
    "archives.device": ("auto", "cpu", "gpu"),
    "archives.refresh": ("new", "all"),
    "train.model": ("paper", "small", "demo", "tiny"),
    "train.sampling": ("cluster", "top", "caption-nouns", "none"),
    "train.reduction": ("log_sum", "mean_log", "each"),
    "train.negatives": ("all", "same-concept", "archive"),
    "train.match": ("pooled", "segments", "both", "compete"),
    "train.augment": ("recipe", "light", "none"),
    "train.reader": ("auto", "petastorm", "arrow"),
    "train.bad_images": ("replace", "stop"),
    "train.device": ("auto", "cpu", "cuda"),
    "train.precision": ("auto", "fp32", "bf16"),
    "train.nonfinite": ("skip", "stop"),
}
_FORMATS = ("webdataset", "parquet", "files", "table", "yfcc14m", "embeddings")
_POSITIVE = (
    "ingest.short_side ingest.max_pixels ingest.max_image_bytes ingest.rows_per_part ingest.image_seconds "
    "concepts.min_count concepts.max_concepts concepts.max_words index.memory_gb "
    "index.recall_queries archives.top archives.batch_size "
    "export.archive_length export.row_group_rows "
    "train.epochs train.batch_size train.accumulate train.temperature train.lr train.shuffle_groups train.prefetch "
    "train.save_steps train.keep train.commit_steps train.log_steps train.max_skipped "
    "experiment.points experiment.eval_scenes experiment.stride"
).split()
_NOT_NEGATIVE = (
    "ingest.min_caption_chars ingest.threads embed.batch_size embed.threads spark.units_per_wave index.train_rows "
    "train.known spark.max_failed_units limit plan.slots train.validate.limit train.validate.short_side "
    "train.validate.window train.validate.stride experiment.scenes experiment.jobs"
).split()


def load_config(path: str | None, overrides: Sequence[str] = ()) -> CocuConfig:
    """The configuration in the YAML file ``path`` (or the defaults) with ``key=value`` overrides applied.

    Raises:
        UserError: an unreadable file, an unknown key (with the nearest right one), a wrong type or value.
    """
    merged = OmegaConf.structured(CocuConfig)
    sources: list[tuple[str, Any]] = []
    if path:
        sources.append((path, _read_yaml(path)))
    sources.append(("command line", _from_overrides(overrides)))
    for where, values in sources:
        _reject_unknown_keys(values, where)
        try:
            merged = OmegaConf.merge(merged, OmegaConf.create(values))
        except ConfigKeyError as error:
            raise UserError(f"{where}: {str(error).splitlines()[0]}") from None
        except OmegaConfBaseException as error:
            key = getattr(error, "full_key", None) or "?"
            raise UserError(f"{where}: {key}: {str(error).splitlines()[0]}") from None
    config = OmegaConf.to_object(merged)
    assert isinstance(config, CocuConfig)
    _expand_home(config)
    _check_values(config, path or "configuration")
    if config.limit and config.workspace:
        config.workspace = f"{config.workspace.rstrip('/')}-first-{config.limit}"
    return config


def _expand_home(config: CocuConfig) -> None:
    """``~`` in every option that is a text."""
    sections = [getattr(config, entry.name) for entry in dataclasses.fields(config)]
    for section in (
        config, *filter(dataclasses.is_dataclass, sections), config.train.validate, *config.corpora,
    ):  # fmt: skip
        for entry in dataclasses.fields(section):
            value = getattr(section, entry.name)
            if isinstance(value, str) and value.startswith("~"):
                try:
                    setattr(section, entry.name, expand_home(value))
                except UserError as error:
                    raise UserError(f"{entry.name}={error}") from None


def to_plain(config: Any) -> dict[str, Any]:
    """A configuration dataclass as nested dictionaries of plain values, for manifests and checkpoints."""
    return dataclasses.asdict(config)


def describe_options(*sections: str) -> str:
    """The keys, defaults and meanings of some sections, as text for ``--help``."""
    lines: list[str] = []
    for key, entry in _leaves(CocuConfig):
        if key.split(".")[0] in sections or ("." not in key and "" in sections):
            default = entry.default if entry.default is not dataclasses.MISSING else entry.default_factory()  # type: ignore[misc]
            lines.append(f"  {key}={default!r}\n      {entry.metadata.get('help', '')}")
    return "\n".join(lines)


def _read_yaml(path: str) -> dict[str, Any]:
    file = Path(path)
    if not file.is_file():
        near = sorted(
            str(other) for other in Path(file.parent if file.parent.is_dir() else ".").glob("*.yaml")
        )
        raise UserError(f"--config {path}: no such file" + (f"; there is {', '.join(near)}" if near else ""))
    try:
        values = yaml.safe_load(read_text(file, path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: the top level must be keys and values, found {type(values).__name__}")
    return values


def _from_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    for item in overrides:
        if "=" not in item or item.startswith("-"):
            raise UserError(f"'{item}' on the command line: write overrides as section.key=value")
    try:
        values = OmegaConf.to_container(OmegaConf.from_dotlist([_spelled_out(item) for item in overrides]))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(f"command line: cannot read an override: {str(error).splitlines()[0]}") from None
    assert isinstance(values, dict)
    return values  # type: ignore[return-value]


def _spelled_out(override: str) -> str:
    """``report.truth=`` means the empty text (or list), and not null."""
    key, _, value = override.partition("=")
    if value:
        return override
    factory = next((entry.default_factory for name, entry in _leaves(CocuConfig) if name == key), None)
    return key + {list: "=[]", dict: "={}"}.get(_made_by(factory), "=''")


def _made_by(factory: Any) -> type | None:
    return type(factory()) if callable(factory) else None


def _leaves(schema: type, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    for entry in dataclasses.fields(schema):
        nested = _section_type(entry)
        if nested is not None:
            yield from _leaves(nested, f"{prefix}{entry.name}.")
        else:
            yield f"{prefix}{entry.name}", entry


def _section_type(entry: dataclasses.Field[Any]) -> type | None:
    factory = entry.default_factory
    return factory if isinstance(factory, type) and dataclasses.is_dataclass(factory) else None


def _reject_unknown_keys(
    values: dict[str, Any], where: str, schema: type = CocuConfig, prefix: str = ""
) -> None:
    known = {entry.name: entry for entry in dataclasses.fields(schema)}
    for key, value in values.items():
        if key not in known:
            raise UserError(f"{where}: unknown key '{prefix}{key}'{_suggestion(str(key), prefix, known)}")
        nested = _section_type(known[key])
        if nested is not None:
            if not isinstance(value, dict):
                raise UserError(
                    f"{where}: '{prefix}{key}' is a section; give it keys of its own, found {value!r}"
                )
            _reject_unknown_keys(value, where, nested, f"{prefix}{key}.")
        elif key == "corpora" and not prefix:
            _check_corpus_list(value, where)


def _check_corpus_list(value: Any, where: str) -> None:
    from configs.schema import CorpusConfig

    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UserError(f"{where}: 'corpora' is a list of entries with name, format and path")
    for number, item in enumerate(value):
        _reject_unknown_keys(item, where, CorpusConfig, f"corpora[{number}].")


def _suggestion(key: str, prefix: str, known: dict[str, Any]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f"; did you mean '{prefix}{near[0]}'?"
    elsewhere = [full for full, _ in _leaves(CocuConfig) if full.split(".")[-1] == key]
    if elsewhere:
        return f"; did you mean '{elsewhere[0]}'?"
    return f"; known here: {', '.join(sorted(known))}"


def _lookup(config: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        config = getattr(config, name)
    return config


def _check_values(config: CocuConfig, where: str) -> None:
    check_overwrite(config.overwrite, where)
    for key, allowed in _CHOICES.items():
        _check_choice(where, key, _lookup(config, key), allowed)
    for key in _POSITIVE:
        if not _lookup(config, key) > 0:
            raise UserError(f"{where}: {key} must be above 0, found {_lookup(config, key)}")
    for key in _NOT_NEGATIVE:
        if _lookup(config, key) < 0:
            raise UserError(f"{where}: {key} must not be negative, found {_lookup(config, key)}")
    if not 1 <= config.ingest.jpeg_quality <= 100:
        raise UserError(
            f"{where}: ingest.jpeg_quality is between 1 and 100, found {config.ingest.jpeg_quality}"
        )
    if config.ingest.max_caption_chars < max(1, config.ingest.min_caption_chars):
        raise UserError(
            f"{where}: ingest.max_caption_chars={config.ingest.max_caption_chars} is below "
            f"ingest.min_caption_chars={config.ingest.min_caption_chars}"
        )
    if not 0 < config.index.target_recall <= 1:
        raise UserError(
            f"{where}: index.target_recall is a share between 0 and 1, found {config.index.target_recall}"
        )
    _check_similarity(where, "duplicates.similarity", config.duplicates.similarity)
    _check_archives(config.archives, where)
    _check_validation(config.train, where)
    if "{}" not in config.clip.prompt:
        raise UserError(
            f"{where}: clip.prompt must contain {{}} for the concept, found '{config.clip.prompt}'"
        )
    names: set[str] = set()
    for number, corpus in enumerate(config.corpora):
        place = f"corpora[{number}]"
        if not corpus.name or not corpus.name.replace("-", "").replace("_", "").isalnum():
            raise UserError(
                f"{where}: {place}.name must be letters, digits, '-' or '_', found '{corpus.name}'"
            )
        if corpus.name in names:
            raise UserError(f"{where}: {place}.name '{corpus.name}' is used twice; give each corpus its own")
        names.add(corpus.name)
        _check_choice(where, f"{place}.format", corpus.format, _FORMATS)
        if not corpus.path:
            raise UserError(f"{where}: {place}.path is missing; name the shards of corpus '{corpus.name}'")
    for key in ("index.corpora", "archives.corpora"):
        for name in _lookup(config, key):
            if name not in names:
                known = ", ".join(sorted(names)) or "none"
                raise UserError(f"{where}: {key} names '{name}', which is no corpus; known: {known}")


def _check_archives(options: ArchivesConfig, where: str) -> None:
    wanted = options.neighbours
    if wanted != "auto" and not (isinstance(wanted, int) and wanted > 0):
        raise UserError(f"{where}: archives.neighbours must be auto or a number above 0, found {wanted}")
    if options.candidates == "vocabulary" and options.ranking != "calibrated":
        raise UserError(
            f"{where}: archives.candidates=vocabulary needs archives.ranking=calibrated, whose probe knows all "
            f"concepts, and it is {options.ranking}; write archives.candidates=neighbours"
        )
    similarity = options.duplicate_similarity
    if similarity is not None:
        _check_similarity(where, "archives.duplicate_similarity", similarity, " (or null: copies count each)")
    if not 0 <= options.probe_weight <= 1:
        raise UserError(
            f"{where}: archives.probe_weight is a share between 0 and 1, found {options.probe_weight}"
        )


def _check_similarity(where: str, key: str, value: float, otherwise: str = "") -> None:
    """Vectors are stored in half precision, so that an exact copy's cosine is 1 within some ten-thousandths."""
    if not 0 < value <= 0.999:
        raise UserError(
            f"{where}: {key} is a cosine above 0 and up to 0.999, found {value}; write for example 0.96{otherwise}"
        )


def _check_validation(options: TrainConfig, where: str) -> None:
    validate = options.validate
    try:
        parse_every(validate.every)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if validate.benchmark and not validate.data:
        raise UserError(
            f"{where}: train.validate.benchmark={validate.benchmark} needs train.validate.data, the folder that holds it"
        )
    if validate.data and not validate.benchmark:
        raise UserError(
            f"{where}: train.validate.data={validate.data} needs train.validate.benchmark: a name as voc, or folder"
        )
    if options.held_out != "auto":
        try:
            share = float(options.held_out)
        except ValueError:
            share = -1.0
        if not 0 <= share < 1:
            raise UserError(
                f"{where}: train.held_out is auto or a share from 0 to below 1, found {options.held_out!r}"
            )
        options.held_out = share


def _check_choice(where: str, key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UserError(f"{where}: {key} is '{value}'; it must be one of {', '.join(allowed)}{hint}")
