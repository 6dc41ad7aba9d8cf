"""Draw contact sheets, heat maps, and quality over cost."""
