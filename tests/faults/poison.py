"""Files that are damaged or meant to do harm: models, indexes, manifests, vectors, Parquet metadata.

Every payload is a pickle that would create a file. It was seen to work (`explode`), so a marker that is not
there proves that nothing ran.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import UserError
from configs.loading import load_config
from storage import tables
from tests import harness
from tests.corpora.ingest_inputs import jpeg
from tests.faults.calm import Corpus, Outcome

PETASTORM_KEY = b"dataset-toolkit.unischema.v1"


class Payload:
    """An object whose unpickling creates a file. ``eval`` is of `builtins`, which "safe" unpicklers let by."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"open({self.marker!r}, 'w')",)


def payload(marker: Path) -> bytes:
    """The pickle."""
    return pickle.dumps(Payload(marker))


def explode(marker: Path) -> None:
    """What must never happen: unpickle it."""
    pickle.loads(payload(marker)).close()


def write_poisoned_training_set(folder: Path, marker: Path, rows: int = 20) -> Path:
    """A Parquet data set whose `_common_metadata` carries a pickled Petastorm schema with the payload.

    Opening the folder with ``petastorm.make_batch_reader`` creates ``marker``; its part file is harmless.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "key": [f"web/00000/{number:04d}" for number in range(rows)],
            "image": [jpeg()] * rows,
            "caption": ["a dog near a river"] * rows,
        }
    )
    pq.write_table(table, folder / "part-00000.parquet")
    schema = table.schema.with_metadata({PETASTORM_KEY: payload(marker)})
    pq.write_metadata(schema, folder / "_common_metadata")
    return folder


@dataclass
class Trial:
    """One poisoned file: how it is made, and the read that must be refused."""

    name: str
    attempt: Callable[[], object]
    says: str


def _damaged(path: Path, change: Callable[[bytes], bytes]) -> Path:
    data = path.read_bytes()
    path.unlink()  # it may be a hard link
    path.write_bytes(change(data))
    return path


def _model_trials(folder: Path, corpus: Corpus, marker: Path) -> Iterator[Trial]:
    import torch

    from models.clip import load_clip

    clip = load_config(str(corpus.config)).clip
    good = Path(clip.pretrained)

    def load(path: Path) -> Callable[[], object]:
        chosen = type(clip)(**{**vars(clip), "pretrained": str(path)})
        return lambda: load_clip(chosen)

    cut = folder / "cut.safetensors"
    cut.write_bytes(good.read_bytes()[:-1000])
    yield Trial("model, truncated", load(cut), str(cut))
    other = Path(harness.write_tiny_clip(folder / "other-clip", width=96)[1])
    yield Trial("model, other dimension", load(other), str(other))
    code = folder / "code.pt"
    torch.save({"state_dict": Payload(marker)}, code)
    yield Trial("model, pickled code", load(code), str(code))
    bare = folder / "bare.pt"
    bare.write_bytes(payload(marker))
    yield Trial("model, bare pickle", load(bare), str(bare))


def _folder_trials(folder: Path, corpus: Corpus, marker: Path) -> Iterator[Trial]:
    """The index and the probe, which are folders of mapped files."""
    from spark_jobs.engine.index_cache import local_index, local_probe

    opened: dict[str, Callable[[str, str, str], object]] = {"index": local_index, "probe": local_probe}

    def poisoned(table: str, name: str, file: str, change: Callable[[bytes], bytes]) -> Trial:
        manifest = tables.read_manifest(str(corpus.calm), table)
        inner = manifest.extra["folder"]
        workspace = folder / f"{table}-{name}".replace(" ", "-")
        shutil.copytree(corpus.calm / table, workspace / table)
        (path,) = (workspace / table / inner).glob(file)
        _damaged(path, change)
        return Trial(
            f"{table}, {name}", lambda: opened[table](str(workspace), inner, manifest.recipe), path.name
        )

    def cut(data: bytes) -> bytes:
        return data[:-100]

    def pickle_of_its_size(data: bytes) -> bytes:
        return payload(marker).ljust(len(data), b"\0")

    def objects(data: bytes) -> bytes:
        path = folder / "objects.npy"
        np.save(path, np.array([Payload(marker)], dtype=object), allow_pickle=True)
        return path.read_bytes().ljust(len(data), b"\0")[: len(data)]

    yield poisoned("index", "truncated", "rows-00000.npy", cut)
    yield poisoned("index", "no array", "list_offsets-00000.npy", pickle_of_its_size)
    yield poisoned("index", "no Arrow file", "keys.arrow", pickle_of_its_size)
    yield poisoned(
        "index", "other dimension", "index.json", lambda data: data.replace(b'"d": 32', b'"d": 64')
    )
    yield poisoned("index", "pickled description", "index.json", lambda _: payload(marker))
    yield poisoned("index", "pickled vectors", "../../vectors/*.npy", objects)
    yield poisoned("index", "pickled ids", "concept_ids.npy", objects)
    yield poisoned("probe", "truncated", "weights.npy", cut)
    yield poisoned("probe", "no array", "mean.npy", pickle_of_its_size)
    yield poisoned("probe", "pickled weights", "weights.npy", objects)
    yield poisoned("probe", "pickled description", "probe.json", lambda _: payload(marker))


def _table_trials(folder: Path, corpus: Corpus, marker: Path) -> Iterator[Trial]:
    def poisoned(name: str, change: Callable[[bytes], bytes], part: bool = False) -> Trial:
        workspace = folder / f"table-{name}".replace(" ", "-")
        shutil.copytree(corpus.calm / "image_embeddings", workspace / "image_embeddings")
        path = workspace / "image_embeddings" / "_manifest.json"
        if part:
            path = Path(tables.read_manifest(str(workspace), "image_embeddings").files[0])
        _damaged(path, change)

        def read() -> object:
            return tables.read_parts(tables.read_manifest(str(workspace), "image_embeddings"))

        return Trial(f"{'part' if part else 'manifest'}, {name}", read, path.name)

    yield poisoned("truncated", lambda data: data[: len(data) // 2])
    yield poisoned("pickle", lambda _: payload(marker))
    yield poisoned("leads out", lambda data: data.replace(b'"_parts/', b'"_parts/../../../'))
    yield poisoned("cut short", lambda data: data[:-50], part=True)
    yield poisoned("a pickle", lambda _: payload(marker), part=True)


def _vector_trials(folder: Path, marker: Path) -> Iterator[Trial]:
    from spark_jobs.import_embeddings import check as check_import
    from spark_jobs.mine_concepts import check_options

    path = folder / "vectors.npy"
    np.save(path, np.array([Payload(marker)] * 3, dtype=object), allow_pickle=True)
    words = folder / "words.txt"
    words.write_text("dog\ncat\nriver\n")
    config = load_config(None, [f"concepts.vocabulary={words}", f"concepts.embeddings={path}"])
    yield Trial("concept vectors, pickled", lambda: check_options(config), str(path))
    corpora = f"corpora=[{{name: a, format: embeddings, path: {path}, metadata: {words}}}]"
    source = load_config(None, [corpora])
    yield Trial("image vectors, pickled", lambda: check_import(source), str(path))


def poisoned_files(corpus: Corpus, scratch: Path) -> Outcome:
    """All of them are refused by an error that names the file, and no payload runs."""
    folder, marker = scratch / "poison", scratch / "poison-ran"
    folder.mkdir()
    trials = [
        *_model_trials(folder, corpus, marker),
        *_folder_trials(folder, corpus, marker),
        *_table_trials(folder, corpus, marker),
        *_vector_trials(folder, marker),
    ]
    wrong = [f"{trial.name}: {text}" for trial in trials if (text := _wrong(trial, marker))]
    refused = len(trials) - len(wrong)
    return Outcome("poisoned files", len(trials), len(trials), refused, 0, "; ".join(wrong) or "ok")


def _wrong(trial: Trial, marker: Path) -> str:
    """What is wrong with how a poisoned file was met, or ""."""
    try:
        trial.attempt()
        text = "was accepted"
    except UserError as error:
        text = "" if trial.says in str(error) else f"the error does not name {trial.says}: {error}"
    except Exception as error:
        text = f"no clear error: {type(error).__name__}: {error}"
    return "its code ran" if marker.exists() else text
