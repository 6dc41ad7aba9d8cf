"""The built-in model cells: histograms of an image's cells, and Q/K/V computed from them."""
