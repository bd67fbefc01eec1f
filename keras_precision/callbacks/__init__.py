"""Callbacks for ``fit`` of Keras 3 and tf_keras."""
