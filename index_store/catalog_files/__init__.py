"""The files behind the catalogue: rows of items and rejects, and the sources that their paths are relative to."""
