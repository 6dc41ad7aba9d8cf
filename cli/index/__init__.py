"""The parts of diffsim-index."""
