"""``.tflite`` files run with LiteRT alone: an oracle that shares no code with the package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def predict(path: Path, samples: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return one array of real numbers per output, with the samples on the first axis; ``samples`` is by input name."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    found: list[list[np.ndarray]] = [[] for _ in outputs]
    for number in range(len(next(iter(samples.values())))):
        for detail in inputs:
            name = detail["name"].removeprefix("serving_default_").split(":")[0]
            interpreter.set_tensor(detail["index"], _quantized(samples[name][number : number + 1], detail))
        interpreter.invoke()
        for values, detail in zip(found, outputs, strict=True):
            scale, zero = detail["quantization"]
            value = interpreter.get_tensor(detail["index"])
            values.append((value.astype("float32") - zero) * scale if scale else value)
    return [np.concatenate(values) for values in found]


def _quantized(sample: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    scale, zero = detail["quantization"]
    if not scale:
        return sample.astype(detail["dtype"])
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.round(sample / scale) + zero, limits.min, limits.max).astype(detail["dtype"])
