"""Quantization-aware training: preparation, settings, and export of the trained model."""
