"""Ask an index for neighbours."""
