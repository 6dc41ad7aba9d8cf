"""Vision transformers as encoders and attention extractors."""
