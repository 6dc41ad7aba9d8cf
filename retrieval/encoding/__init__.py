"""From image files to the tensors and vectors that an index keeps."""
