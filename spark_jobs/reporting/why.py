"""Why a concept is in an archive, in words: who named it, and what the probe expects."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["why"]

_HEARD = 0.005
"""Chances below are outweighed by the score's constant floor (0.003 / 0.6): the probe was asked and says nothing."""


def why(votes: int, named_by: Sequence[int], chance: float) -> str:
    """One phrase.

    Args:
        votes: neighbours whose captions name it.
        named_by: places of the nearest of them, from 0.
        chance: that a caption of this image names it, as the probe estimates; 0 where no probe was asked.
    """
    probe = f"the probe ({chance:.0%})" if chance >= _HEARD else ""
    if not votes:
        return probe or "the probe's last choices (under 1%)"
    places = [str(place + 1) for place in named_by]
    more = votes - len(places)
    if more:
        listed = f"{', '.join(places)} and {more} more"
    else:
        listed = " and ".join(filter(None, [", ".join(places[:-1]), places[-1]]))
    named = f"named by neighbour{'s' if votes > 1 else ''} {listed}"
    return f"{named}; {probe}" if probe else named
