"""Accuracy drop per class of a quantized file, its most sensitive layers, and the plan that recovers the predictions."""
