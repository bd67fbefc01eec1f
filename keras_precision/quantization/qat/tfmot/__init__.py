"""TensorFlow Model Optimization, and the conversion of Keras 3 models to tf_keras."""
