"""`python -m tests.bench.duplicates DATA`: find copies made by code, and tell them from pictures that are alike."""
