"""Quantization-aware training in Keras 3: fake quantization, and the layers that hold it."""
