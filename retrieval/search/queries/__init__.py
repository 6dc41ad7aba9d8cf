"""Questions: an image or several, read once and validated, and how several become one ranking."""
