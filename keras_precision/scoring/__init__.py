"""Scores and divergences of predictions, with NumPy only."""
