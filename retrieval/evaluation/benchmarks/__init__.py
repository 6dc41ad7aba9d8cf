"""The benchmarks: their loaders, and the paper's numbers."""
