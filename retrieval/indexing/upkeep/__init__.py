"""Look after an index: remove items, compact, verify, repair, export. Every change is one atomic commit."""
