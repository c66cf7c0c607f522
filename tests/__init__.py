"""Tests; the layout mirrors the source."""
