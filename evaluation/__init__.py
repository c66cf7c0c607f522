"""Zero-shot segmentation on the benchmarks and on one's own photos."""
