"""Layers, operations and gradients of a model, read while it is traced."""
