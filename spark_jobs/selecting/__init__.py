"""Which pairs are curated: filters that look at one pair each."""
