"""The embedded default: generated scenes, captions, masks and a tiny CLIP."""
