"""Model files, checked before Keras or tf_keras loads them."""
