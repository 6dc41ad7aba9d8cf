"""Texts as questions: alone they rank by vectors, beside an image they narrow its candidates."""
