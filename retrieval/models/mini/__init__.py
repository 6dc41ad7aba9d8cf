"""The built-in model mini: histograms of an image's cells, and Q/K/V computed from them."""
