"""What build_archives is made of."""
