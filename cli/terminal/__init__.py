"""The terminal: printed lines, progress bars, signals and exit codes."""
