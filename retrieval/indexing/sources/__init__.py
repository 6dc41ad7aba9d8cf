"""Where an index's images come from: sources, files that were moved or copied, and pictures that are known already."""
