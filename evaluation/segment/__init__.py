"""One's own photos in one's own words (``python -m evaluation.segment``)."""
