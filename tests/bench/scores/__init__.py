"""Benchmarks of scores that mean something: percentiles, thresholds, scaling, boards and two modes at once."""
