"""Builds by several processes or machines: workers write whole segments, one driver commits them."""
