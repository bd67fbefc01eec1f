"""Fake quantization in Keras 3, and its layers."""
