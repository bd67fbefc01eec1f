"""The ``.tflite`` file: read, run, cut into operators, and changed."""
