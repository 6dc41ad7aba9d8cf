"""Networks, and the tensors and vectors that they give of an image."""
