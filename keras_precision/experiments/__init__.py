"""Experiments: runs in processes of their own."""
