"""One pair's archive as text for the terminal."""

from __future__ import annotations

import textwrap

from spark_jobs.reporting.data import load_pair

__all__ = ["explain"]


def explain(workspace: str, key: str) -> str:
    """Caption, neighbours with their captions, ranked concepts with score, cluster and why; + marks what is new.

    Raises:
        UserError: no such pair.
    """
    pair = load_pair(workspace, key)
    lines = [
        pair.key,
        *textwrap.wrap(pair.caption, 96, initial_indent="  caption: ", subsequent_indent="           "),
    ]
    lines.append(f"\n  {len(pair.neighbours)} neighbours")
    for near in pair.neighbours:
        lines.append(
            f"    {near.similarity:.3f}  {textwrap.shorten(near.caption, 60, placeholder='...'):<60}  {near.key}"
        )
    lines.append(
        f"\n  {len(pair.concepts)} concepts, best first (+ the caption lacks it, = the caption has it)"
    )
    width = max((len(concept.name) for concept in pair.concepts), default=0)
    for concept in pair.concepts:
        mark = "=" if concept.in_caption else "+"
        lines.append(
            f"    {mark} {concept.name:<{width}}  score {concept.score:7.4f}  cluster {concept.cluster}  {concept.why}"
        )
    return "\n".join(lines)
