"""Where results live: addresses, tables and their manifests, locks, vectors in columns. No Spark."""
