"""Which metadata file describes which file of vectors: by the numbers in their names."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from configs.errors import UserError
from configs.schema import CorpusConfig
from storage.patterns import expand

__all__ = ["paired_files"]

_NUMBER = re.compile(r"\d+")
_Key = tuple[str | int, ...]


def paired_files(corpus: CorpusConfig) -> list[tuple[str, str]]:
    """(.npy file, its metadata file), in the order of a brace range or, after a glob, of the numbers.

    What counts are the numbers that differ from file to file, as numbers: `img_emb_2` belongs to `metadata_02`
    and not to `metadata_10`. Names without numbers are paired by what stands in for them, or where both
    sides are spelled out in braces, by their place.

    Raises:
        UserError: nothing matches, one side has other files than the other, or names that leave it open.
    """
    if not corpus.metadata:
        raise UserError(
            f"corpus '{corpus.name}': metadata is missing, the files with the captions of {corpus.path}"
        )
    vectors, metadata = expand(corpus.path), expand(corpus.metadata)
    if len(vectors) != len(metadata):
        raise UserError(
            f"corpus '{corpus.name}': {len(vectors)} .npy files ({corpus.path}) and {len(metadata)} metadata "
            f"files ({corpus.metadata}); there must be one for each"
        )
    spelled = not any(set(pattern) & set("*?[") for pattern in (corpus.path, corpus.metadata))
    if len(vectors) == 1 and (spelled or not (_numbered(_keyed(vectors)) and _numbered(_keyed(metadata)))):
        return [(vectors[0], metadata[0])]
    return _paired(corpus, _keyed(vectors), _keyed(metadata), spelled)


def _paired(
    corpus: CorpusConfig, vectors: dict[str, _Key], metadata: dict[str, _Key], spelled: bool
) -> list[tuple[str, str]]:
    by_key = {key: file for file, key in metadata.items()}
    order = vectors if spelled else sorted(vectors, key=lambda file: [_sortable(p) for p in vectors[file]])
    unlike = next((file for file in order if vectors[file] not in by_key), None)
    if unlike is None and len(by_key) == len(metadata) and len(set(vectors.values())) == len(vectors):
        return [(file, by_key[vectors[file]]) for file in order]
    if spelled and not (_numbered(vectors) and _numbered(metadata)):
        return list(zip(vectors, metadata, strict=True))
    if unlike is None:
        unlike = next(iter(vectors))
        raise UserError(
            f"corpus '{corpus.name}': {corpus.path} and {corpus.metadata} have files of equal numbers, so that "
            f"it is open which belong together; name both by a brace range"
        )
    others = sorted(posixpath.basename(file) for file in metadata)
    raise UserError(
        f"corpus '{corpus.name}': no metadata file has the number of {unlike}; there are "
        f"{', '.join(others[:3])}{', ...' if len(others) > 3 else ''} ({corpus.metadata})"
    )


def _sortable(part: str | int) -> tuple[bool, str | int]:
    return isinstance(part, str), part


def _numbered(files: dict[str, _Key]) -> bool:
    return all(any(isinstance(part, int) for part in key) for key in files.values())


def _keyed(files: Sequence[str]) -> dict[str, _Key]:
    """Each file's parts that tell it from the others: the numbers if these do, else the words, too.

    Of a single file it is the last number of its name.
    """
    if len(files) == 1:
        numbers = _NUMBER.findall(posixpath.splitext(posixpath.basename(files[0]))[0])
        return {files[0]: (int(numbers[-1]),) if numbers else ()}
    stems = [posixpath.splitext(file)[0] for file in files]
    numbers_of = [tuple(int(number) for number in _NUMBER.findall(stem)) for stem in stems]
    keys = _differing(numbers_of)
    if keys is None or len(set(keys)) < len(files):
        keys = _differing([_split(stem) for stem in stems]) or [(stem,) for stem in stems]
    return dict(zip(files, keys, strict=True))


def _split(stem: str) -> _Key:
    parts = [part for part in re.split(r"(\d+)|[/._-]", stem) if part]
    return tuple(int(part) if part.isdigit() else part for part in parts)


def _differing(keys: Sequence[_Key]) -> list[_Key] | None:
    """The places in which keys of one length are not all the same; None if their lengths differ."""
    if len({len(key) for key in keys}) != 1:
        return None
    places = [place for place, parts in enumerate(zip(*keys, strict=True)) if len(set(parts)) > 1]
    return [tuple(key[place] for place in places) for key in keys]
