"""Describe, check and time a .tflite file on a device: NumPy and an interpreter are all that this needs.

Run: python examples/edge_device.py model.tflite --data test.npz

The data hold samples as ``x`` and their classes as ``y``: np.savez("test.npz", x=x_test, y=y_test).
"""

import argparse
import sys

import numpy as np

from keras_precision import edge


def main() -> None:
    """Print what the file holds, how fast it answers, and, with data, how often it is right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="a .tflite file")
    parser.add_argument("--data", help="an .npz file with x and y")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to time at the least")
    options = parser.parse_args()

    model = edge.inspect(options.path)
    print(f"{model.path}: {model.size_bytes:,} bytes, read by {model.runtime}")
    for tensor in (*model.inputs, *model.outputs):
        print(f"  {tensor.name}  {list(tensor.shape)}  {tensor.described}")
    for kind, count in model.operator_counts.items():
        print(f"  {count:4d}  {kind}")

    inputs = None
    if options.data:
        data = np.load(options.data)
        inputs = data["x"]
        scored = edge.evaluate(options.path, inputs, data["y"])
        print(f"accuracy  {100 * scored.value('accuracy'):.2f} % of {scored.value('samples')} samples")
    timed = edge.benchmark(options.path, inputs, threads=options.threads, min_seconds=options.seconds)
    print(f"latency   {timed.value('latency_ms'):.3f} ms median, {timed.value('latency_p95_ms'):.3f} ms p95")
    print(f"machine   {timed.environment.processor}, {timed.environment.cores} cores")
    print(f"frameworks loaded: {', '.join({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)) or 'none'}")


if __name__ == "__main__":
    main()
