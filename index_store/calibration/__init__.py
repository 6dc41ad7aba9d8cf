"""Scores of random pairs of an index's own images, stored beside it: what a score is compared with."""
