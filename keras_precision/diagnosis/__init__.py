"""Findings about models: from one observed training step, or from the graph alone."""
