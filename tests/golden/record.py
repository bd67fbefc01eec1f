"""Record the session in ``golden/session``: a real one, of three training runs and three files.

    python tests/golden/record.py

The golden files are made of it: ``python tests/golden/record.py --render`` writes them again; review the diff.
"""

import sys
from pathlib import Path

import keras_precision as kp
from keras_precision.callbacks.probes.loss_scale import LossScaleProbe
from keras_precision.callbacks.probes.memory import MemoryProbe
from keras_precision.callbacks.probes.step_time import StepTimeProbe

sys.path.insert(0, str(Path(__file__).parents[1]))
from recorded import FORMS, GOLDEN, session


def record(folder: Path) -> None:
    """Train and export a small net, and save every result."""
    import keras
    import numpy as np
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 16).astype("float32")
    for policy in ("float32", "mixed_bfloat16", "mixed_float16"):
        keras.utils.set_random_seed(0)
        with kp.precision(policy):
            layers = keras.layers
            model = keras.Sequential(
                [
                    keras.Input((8, 8, 1), name="image"),
                    layers.Conv2D(8, 3, activation="relu", name="stem"),
                    layers.Conv2D(16, 3, activation="relu", name="mix"),
                    layers.GlobalAveragePooling2D(name="pool"),
                    layers.Dense(10, activation="softmax", name="head", dtype="float32"),
                ]
            )
        optimizer = keras.optimizers.Adam(0.01)
        if policy == "mixed_float16":  # so high a scale that the first steps overflow
            optimizer = kp.LossScaleOptimizer(optimizer, initial_scale=2.0**24, dynamic_growth_steps=20)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        probes = [StepTimeProbe(), MemoryProbe(), LossScaleProbe(every=1)]
        profiler = kp.PrecisionProfiler(policy, probes, verbose=0)
        train, test = images[:1200], images[1200:]
        data = (test, classes[1200:])
        model.fit(train, classes[:1200], validation_data=data, epochs=6, batch_size=64, verbose=0, callbacks=[profiler])
        profiler.result.save(folder / f"train-{policy}.json")
        if policy != "float32":
            continue
        for precision in ("float32", "float16", "int8"):
            path = folder / "model.tflite"
            result = kp.export_tflite(model, path, precision, representative_dataset=train[:100])
            result = result.joined(kp.evaluate(path, *data, reference=model))
            result = result.joined(kp.benchmark(path, np.asarray(test), min_seconds=0.2))
            kp.Result(f"tflite:{precision}", result.measurements, result.environment, result.plan, result.notes).save(
                folder / f"tflite-{precision}.json"
            )
            path.unlink()


if __name__ == "__main__":
    if "--render" not in sys.argv:
        record(GOLDEN / "session")
    for form, name in FORMS.items():
        (GOLDEN / name).write_text(kp.render(session(), form) + "\n", encoding="utf-8")
