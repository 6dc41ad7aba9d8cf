"""Devices: choose one, ask for its free memory, copy to and from it, and the dtype it scores in."""
