"""Words, nouns, the vocabulary, and the concepts that a caption names."""
