"""Explanations of scores: which cells of two images agree, which correspond, and a picture of both."""
