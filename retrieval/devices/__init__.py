"""Devices: which one to use, its free memory, copies to it, and the dtype it scores in."""
