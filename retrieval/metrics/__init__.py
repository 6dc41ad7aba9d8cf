"""Metrics to compare AAS with, behind one protocol."""
