"""Evaluation and benchmark of models and files."""
