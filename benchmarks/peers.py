"""What others make of a model: TFLiteConverter as its guide has it, and AI Edge Quantizer as it comes."""

import importlib
import tempfile
from typing import Any

import numpy as np

from keras_precision._adapters.model_view import ModelView
from keras_precision.core.system.captured_output import capture_output
from keras_precision.quantization.float_model import float_file
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer


def by_converter(model: Any, samples: np.ndarray) -> bytes:
    """Return the full integer file that TFLiteConverter makes, float at its sides."""
    import tensorflow as tf

    with capture_output("TFLiteConverter"), tempfile.TemporaryDirectory() as folder:
        if type(model).__module__.startswith("tf_keras"):
            converter = tf.lite.TFLiteConverter.from_keras_model(model)
        else:
            keras = importlib.import_module("keras")
            side = [keras.InputSpec(shape=(1, *each.shape[1:]), dtype=each.dtype) for each in model.inputs]
            model.export(folder, format="tf_saved_model", input_signature=side, verbose=False)
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([samples[index : index + 1]] for index in range(len(samples)))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        return bytes(converter.convert())


def by_aeq(model: Any, samples: np.ndarray) -> bytes:
    """Return what AI Edge Quantizer makes with its own calibration and its static recipe."""
    quantizer = importlib.import_module("ai_edge_quantizer.quantizer")
    recipe = importlib.import_module("ai_edge_quantizer.recipe")
    content = float_file(ModelView.of(model)).content
    name = next(iter(Flatbuffer(content).named_inputs()))
    with capture_output("AI Edge Quantizer"):
        made = quantizer.Quantizer(bytearray(content))
        made.load_quantization_recipe(recipe.static_wi8_ai8())
        data = {"serving_default": [{name: samples[index : index + 1]} for index in range(len(samples))]}
        return bytes(made.quantize(made.calibrate(data)).quantized_model)
