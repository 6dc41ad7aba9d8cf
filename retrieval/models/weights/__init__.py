"""Weights of networks: which files they lie in, how they are found, fetched, checked, loaded and identified."""
