"""Experiments: comparisons and searches that run in child processes."""
