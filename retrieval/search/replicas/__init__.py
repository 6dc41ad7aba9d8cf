"""Searches by several replicas: each holds some segments of an index, and together they answer as one process does."""
