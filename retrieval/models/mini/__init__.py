"""The embedded model: histograms of an image's cells, and the values, queries and keys that are made of them."""
