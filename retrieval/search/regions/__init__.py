"""Regions of questions: how they are scored, where results have them, and a closer look at those places."""
