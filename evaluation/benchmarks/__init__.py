"""The benchmarks' data sets, and how mmsegmentation runs them."""
