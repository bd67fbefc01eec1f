"""keras_precision: see, ship and choose lower precision in Keras."""
