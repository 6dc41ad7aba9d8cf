"""Find, sniff, decode and resize images."""
