"""The parts of diffsim-eval."""
