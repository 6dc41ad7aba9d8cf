"""Groups of an index's images: copies of the same picture, pictures that are alike, and clusters of a mode."""
