"""Ways to evaluate a plan: by its file, by quantization-aware training, or by training runs."""
