"""Find, recognise, decode and resize images."""
