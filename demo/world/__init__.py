"""The drawn world: things, grounds, scenes, and captions that leave most of them out."""
