"""Tests of verify, repair, compaction and going back."""
