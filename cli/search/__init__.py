"""Parts of ``diffsim-search``: its further options, filters, and lists of queries."""
