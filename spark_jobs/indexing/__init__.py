"""What build_index is made of."""
