"""Fake quantization in Keras 3, and the layers that hold it."""
