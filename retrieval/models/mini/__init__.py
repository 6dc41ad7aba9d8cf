"""The built-in model mini: EfficientNet-Lite0 from an ordinary package, and Q/K/V computed from its maps."""
