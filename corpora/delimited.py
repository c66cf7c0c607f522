"""Rows of CSV and TSV text: fields, quotes, and rows that have more fields than their header."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

from corpora.captions import Problem
from corpora.reasons import Reason

__all__ = ["fit_fields", "parse_rows", "split_fields"]

# A field that quotes enclose, doubled inside, as pandas writes what holds a tab or a quote; else to the next tab.
_TSV_FIELD = re.compile(r'"((?:[^"]++|"")*+)"(?=[\t\n]|\Z)|([^\t\n]*)')

csv.field_size_limit(1 << 30)  # the length of a line is limited by its reader


def split_fields(line: str, delimiter: str) -> list[str] | None:
    """The fields of one line, or None if a quote is open at its end.

    CSV by the book. In TSV quotes are ordinary characters, unless they enclose a field and are doubled
    inside, as pandas writes a field that holds a tab or a quote.
    """
    if delimiter == "\t":
        return line.split("\t") if '"' not in line else next(_tsv_rows(line), [])
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return None


def parse_rows(text: str, delimiter: str) -> list[list[str]]:
    """All rows of a table whose lines end in LF, the header first; empty lines are no rows.

    A quoted field may hold line breaks. In a TSV that is looked for only where the lines by themselves are not
    as wide as the header: there a caption may begin with a quote and mean nothing by it.
    """
    if delimiter != "\t":
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    rows = [split_fields(line, delimiter) or [] for line in text.split("\n") if line]
    if all(len(row) == len(rows[0]) for row in rows):
        return rows
    return [row for row in _tsv_rows(text) if row != [""]]


def _tsv_rows(text: str) -> Iterator[list[str]]:
    row: list[str] = []
    place = 0
    while match := _TSV_FIELD.match(text, place):
        quoted, plain = match.groups()
        row.append(plain if quoted is None else quoted.replace('""', '"'))
        place = match.end()
        if text[place : place + 1] != "\t":
            yield row
            row = []
            if place >= len(text):
                return
        place += 1


def fit_fields(fields: list[str], width: int, caption: int, delimiter: str) -> list[str] | Problem:
    """The fields of a row under a header of ``width`` columns.

    Surplus ones come of delimiters in a caption that nobody quoted: they belong to it if it is the last column,
    and else nobody can tell what belongs to what.
    """
    if len(fields) <= width:
        return fields
    if caption == width - 1:
        return [*fields[:caption], delimiter.join(fields[caption:])]
    return Problem(Reason.MALFORMED_ROW, f"{len(fields)} fields of {width}")
