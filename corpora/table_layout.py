"""Where a CSV or TSV file has what, found on its first lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from configs.errors import UserError
from configs.schema import CorpusConfig
from configs.text_files import line_break, refuse_other_marks
from corpora.delimited import split_fields
from corpora.samples import IMAGES
from storage.addresses import resolve

__all__ = ["TableLayout", "find_layout"]

_HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class TableLayout:
    """``keys`` and ``captions`` are column numbers, ``width`` is the number of columns that rows should have."""

    delimiter: str
    header: bool
    keys: tuple[int, ...]
    captions: tuple[int, ...]
    width: int
    line_break: bytes = b"\n"


def find_layout(
    corpus: CorpusConfig,
    address: str,
    keys: Sequence[tuple[str, ...]],
    captions: Sequence[tuple[str, ...]],
) -> TableLayout:
    """The layout by the first of the column names that are there, whichever delimiter shows them.

    Without a header the first two columns are path and caption, if the first looks like an image's path.

    Raises:
        UserError: the columns are not there, or two have the name; or the file is not UTF-8.
    """
    filesystem, path = resolve(address)
    with filesystem.open_input_stream(path) as stream:
        head = stream.read(_HEAD_BYTES)
    refuse_other_marks(head, address)
    ending = line_break(head)
    lines = [line.rstrip("\r") for line in head.decode("utf-8-sig", "replace").split(ending.decode())]
    delimiters = _delimiters(address, lines[0])
    for delimiter in delimiters:
        fields = split_fields(lines[0], delimiter) or []
        key = next((names for names in keys if all(name in fields for name in names)), None)
        caption = next((names for names in captions if all(name in fields for name in names)), None)
        if key and caption:
            _refuse_doubles(corpus, address, fields, (*key, *caption))
            columns = tuple(map(fields.index, key)), tuple(map(fields.index, caption))
            return TableLayout(delimiter, True, *columns, len(fields), ending)
        if key is None and caption is None and len(fields) > 1 and fields[0].lower().endswith(IMAGES):
            return TableLayout(delimiter, False, (0,), (1,), _usual_width(lines, delimiter), ending)
    wanted = " and ".join(
        f"'{' or '.join('+'.join(names) for names in choice)}'" for choice in (keys, captions)
    )
    found = ", ".join(split_fields(lines[0], delimiters[0]) or [])[:200]
    raise UserError(
        f"corpus '{corpus.name}': {address} needs columns {wanted}, its first line has {found or 'nothing'}; "
        "set image_column and caption_column"
    )


def _delimiters(address: str, first: str) -> tuple[str, str]:
    """What the name of the file says comes first; many a .csv is full of tabs."""
    ending = re.sub(r"\.(gz|bz2|zst)$", "", address)
    return (",", "\t") if ending.endswith(".csv") or "\t" not in first else ("\t", ",")


def _refuse_doubles(corpus: CorpusConfig, address: str, fields: Sequence[str], names: Sequence[str]) -> None:
    for name in names:
        if fields.count(name) > 1:
            raise UserError(
                f"corpus '{corpus.name}': {address} has two columns called '{name}'; rename one of them"
            )


def _usual_width(lines: Sequence[str], delimiter: str) -> int:
    """What most of the first lines have; the last one may be cut."""
    whole = [line for line in lines[:-1] if line.strip()] or lines[:1]
    counts = Counter(len(split_fields(line, delimiter) or []) for line in whole)
    return max(2, max(counts, key=lambda width: (counts[width], -width)))
