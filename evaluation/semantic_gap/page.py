"""The HTML page of the semantic-gap measure: one file, no request to anywhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from configs.output_folder import write_whole
from evaluation.html_pages import page_environment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evaluation.semantic_gap.comparison import Gap
    from evaluation.semantic_gap.labels import LabelMatcher

__all__ = ["write_page"]

_EXAMPLES = 12
_LABELS = 40
_SHOWN_CONCEPTS = 10
_COLOURS = ("#0b7a5b", "#3f6fb5", "#c0562f", "#7d4fa8", "#a58300", "#5b6675")
_CAPTION = "#8a94a3"


def write_page(
    path: Path,
    gap: Gap,
    archives: Mapping[str, Mapping[str, Sequence[str]]],
    matcher: LabelMatcher,
    title: str,
) -> None:
    """Write the page of what was measured; ``archives`` and ``matcher`` as given to measure_gap, for the examples."""
    environment = page_environment()
    environment.filters["percent"] = lambda share: "–" if share is None else f"{share:.1%}"
    names = [name for name in gap.areas[0] if name not in ("low", "high", "visible")]
    page = environment.get_template("semantic_gap.html.j2").render(
        title=title,
        gap=gap,
        figures=_figures(gap, names),
        names=names,
        labels=_label_rows(gap),
        examples=_examples(gap, archives, matcher),
    )
    write_whole(path, page)


def _figures(gap: Gap, names: Sequence[str]) -> list[tuple[str, Markup]]:
    figures = []
    if gap.archives:
        figures.append(
            ("Recall: share of what a picture shows that is named", _figure(lambda axes: _recall(axes, gap)))
        )
        figures.append(
            (
                "Precision: share of the best k concepts that are visible",
                _figure(lambda axes: _curves(axes, gap, "precision")),
            )
        )
    if any(result.missing for result in gap.archives):
        figures.append(
            (
                "Of what captions leave out: recall",
                _figure(lambda axes: _curves(axes, gap, "recall", missing=True)),
            )
        )
    if len(gap.areas) > 1 and names:
        figures.append(("By area in the picture", _figure(lambda axes: _bars(axes, gap, names))))
    return figures


def _figure(draw: Callable[[Axes], None]) -> Markup:
    """An SVG as a data address: ids of several figures cannot meet."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "text.parse_math": False, "svg.hashsalt": "gap"}):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Markup("data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode())


def _steps(curve: np.ndarray) -> np.ndarray:
    return np.arange(1, len(curve) + 1)


def _finish(axes: Axes, depth: int) -> None:
    axes.set(xlabel="best k concepts", ylim=(0, 1), xlim=(0.5, depth + 0.5))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(frameon=False, fontsize=9)


def _recall(axes: Axes, gap: Gap) -> None:
    for result, colour in zip(gap.archives, _cycle(len(gap.archives)), strict=True):
        curve = result.visible.recall
        axes.plot(_steps(curve), curve, color=colour, label=result.name, marker=".")
        if result.joint_recall is not None:
            axes.plot(
                _steps(curve),
                result.joint_recall,
                color=colour,
                linestyle="--",
                label=f"caption or {result.name}",
            )
    if gap.caption_recall is not None:
        axes.axhline(gap.caption_recall, color=_CAPTION, label="caption")
    _finish(axes, len(gap.archives[0].visible.recall))


def _curves(axes: Axes, gap: Gap, curve_name: str, missing: bool = False) -> None:
    for result, colour in zip(gap.archives, _cycle(len(gap.archives)), strict=True):
        measures = result.missing if missing else result.visible
        if measures is not None:
            curve = getattr(measures, curve_name)
            axes.plot(_steps(curve), curve, color=colour, label=result.name, marker=".")
    _finish(axes, len(gap.archives[0].visible.recall))


def _bars(axes: Axes, gap: Gap, names: Sequence[str]) -> None:
    bins = gap.areas[1:]
    width = 0.8 / len(names)
    places = np.arange(len(bins))
    for number, (name, colour) in enumerate(zip(names, _cycle(len(names), _CAPTION, "#c9c3b2"), strict=True)):
        heights = [row[name] or 0.0 for row in bins]
        axes.bar(
            places + (number - (len(names) - 1) / 2) * width, heights, width * 0.92, label=name, color=colour
        )
    axes.set_xticks(
        places,
        [f"{100 * row['low']:.3g}–{100 * row['high']:.3g} %\n{row['visible']:,} labels" for row in bins],
    )
    axes.set(ylim=(0, 1), xlabel="share of the picture's area")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(frameon=False, fontsize=9)


def _cycle(count: int, *first: str) -> list[str]:
    colours = [*first, *_COLOURS]
    return [colours[number % len(colours)] for number in range(count)]


def _label_rows(gap: Gap) -> list[dict[str, Any]]:
    """The labels that captions leave out most often, with how many pictures show them and what names them."""
    truth = gap.truth
    size = len(truth.labels)
    visible = np.bincount(truth.label_ids, minlength=size)
    columns: dict[str, np.ndarray] = {}
    if truth.named is not None:
        columns["caption"] = np.bincount(truth.label_ids, truth.named, minlength=size)
    for result in gap.archives:
        columns[f"{result.name} @5"] = np.bincount(truth.label_ids, result.visible.ranks < 5, minlength=size)
    missed = visible - columns.get("caption", 0)
    order = np.argsort(-missed, kind="stable")[:_LABELS]
    return [
        {"label": truth.labels[number], "visible": int(visible[number])}
        | {name: found[number] / visible[number] for name, found in columns.items()}
        for number in order
        if visible[number]
    ]


def _examples(
    gap: Gap, archives: Mapping[str, Mapping[str, Sequence[str]]], matcher: LabelMatcher
) -> list[dict[str, Any]]:
    """Some pictures, evenly spread over the truth: what is visible, by whom it is named, and the archives."""
    truth = gap.truth
    shown = np.unique(truth.rows)
    chosen = shown[np.linspace(0, len(shown) - 1, min(_EXAMPLES, len(shown))).astype(int)]
    examples = []
    for row in chosen:
        inside = truth.rows == row
        visible = truth.label_ids[inside]
        named = truth.named[inside] if truth.named is not None else np.zeros(len(visible), bool)
        examples.append(
            {
                "key": truth.keys[row],
                "labels": [
                    (truth.labels[label], bool(hit)) for label, hit in zip(visible, named, strict=True)
                ],
                "archives": [
                    (name, _marked(lists.get(truth.keys[row], ()), set(visible.tolist()), matcher))
                    for name, lists in archives.items()
                ],
            }
        )
    return examples


def _marked(concepts: Sequence[str], visible: set[int], matcher: LabelMatcher) -> list[tuple[str, bool]]:
    """The best concepts of an archive and whether each names something visible."""
    return [
        (concept, not visible.isdisjoint(matcher.of_concept(concept)))
        for concept in concepts[:_SHOWN_CONCEPTS]
    ]
