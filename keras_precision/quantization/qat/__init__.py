"""Quantization-aware training: where a model is quantized, how it starts, and what was trained."""
