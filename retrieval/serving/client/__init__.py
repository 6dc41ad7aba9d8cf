"""Ask a server from Python, with the methods of an engine."""
