"""Calibration, conversion, post-training quantization, and quantization-aware training."""
