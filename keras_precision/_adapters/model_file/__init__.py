"""Saved models, checked before any Keras gets them."""
