"""Scores and divergences of answers, from NumPy alone."""
