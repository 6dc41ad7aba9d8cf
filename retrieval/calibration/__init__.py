"""What a score is worth: its percentile among the scores of random pairs of an index's own images."""
