"""Models and files asked for answers: evaluate scores them, benchmark times them."""

from keras_precision.verify.evaluation import evaluate
from keras_precision.verify.timing import benchmark

__all__ = ["benchmark", "evaluate"]
