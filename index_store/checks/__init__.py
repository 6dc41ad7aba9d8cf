"""Checks of an index's files before they are believed: names, JSON values, array headers, Parquet sizes, links."""
