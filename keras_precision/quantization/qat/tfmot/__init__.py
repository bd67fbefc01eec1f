"""TensorFlow Model Optimization, and the bridge to tf_keras."""
