"""The ``.tflite`` file: read, run, cut and changed."""
