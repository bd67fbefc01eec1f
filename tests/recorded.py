"""The recorded session that the golden files are made of; ``golden/record.py`` recorded it."""

from pathlib import Path

import keras_precision as kp

GOLDEN = Path(__file__).parent / "golden"
FORMS = {"text": "session.txt", "markdown": "session.md", "html": "session.html"}


def session() -> list[kp.Result]:
    """Return the recorded results, in the order in which a user would have them."""
    names = [f"train-{name}" for name in ("float32", "mixed_bfloat16", "mixed_float16")]
    names += [f"tflite-{name}" for name in ("float32", "float16", "int8")]
    return [kp.Result.load(GOLDEN / "session" / f"{name}.json") for name in names]
