"""tf_keras: Keras 2, on TensorFlow."""
