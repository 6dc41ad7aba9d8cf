"""Draw contact sheets and heat maps."""
