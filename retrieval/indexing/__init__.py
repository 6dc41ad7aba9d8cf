"""Change an index: build, fill, compact, repair."""
