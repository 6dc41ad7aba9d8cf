"""Diffusion models as attention extractors."""
