"""What build_index is made of, and find_duplicates, which builds an index of vectors alone."""
