"""What captions name and archives recover (``python -m evaluation.semantic_gap``); needs no model."""
