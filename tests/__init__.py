"""Tests; the layout mirrors the source."""

# Declares torchvision's operators before anything imports it, in Spark's Python workers as well: these import the
# test module whose function they run.
import models  # noqa: F401
