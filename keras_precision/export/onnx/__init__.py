"""ONNX Runtime and TensorRT: a model as an ``.onnx`` file."""
