"""The routes of the API under /v1, of health and metrics, and of the page."""
