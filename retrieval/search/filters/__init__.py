"""Filters: which images of an index may be results, decided before candidates are chosen."""
