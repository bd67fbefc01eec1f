"""Ranges measured on a model's own data, and files quantized with them."""
