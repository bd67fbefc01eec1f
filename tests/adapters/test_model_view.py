"""What a public function asks about a model, it asks once, and hands on."""

import importlib
import pkgutil
import sys
from collections import Counter

import nets
import pytest

import keras_precision as kp
from keras_precision._adapters.model_view import ModelView
from keras_precision.core.errors import ModelError


@pytest.fixture
def lookups(monkeypatch):
    """Counts of calls of adapter_of and paths_of, wherever the package imported them to."""
    counts = Counter()
    for module in pkgutil.walk_packages(kp.__path__, "keras_precision."):
        if module.name.startswith(("keras_precision.export", "keras_precision.quantization.c", "keras_precision.diag")):
            importlib.import_module(module.name)
    sources = {"adapter_of": "keras_precision._adapters", "paths_of": "keras_precision._adapters.layer_paths"}
    for name, source in sources.items():
        original = getattr(sys.modules[source], name)

        def counted(*arguments, name=name, original=original):
            counts[name] += 1
            return original(*arguments)

        for module in [module for key, module in sys.modules.items() if key.startswith("keras_precision")]:
            if vars(module).get(name) is original:
                monkeypatch.setattr(module, name, counted)
    return counts


def test_one_lookup_per_call(stack, rng, tmp_path, lookups):
    """Exports, diagnoses and plans find the adapter and the paths of a model once; a copy has paths of its own."""
    model = nets.mlp(stack.keras)
    samples = rng.uniform(size=(16, 8)).astype("float32")
    kp.export_tflite(model, tmp_path / "model.tflite", "int8", representative_dataset=samples)
    assert lookups == {"adapter_of": 1, "paths_of": 1}
    lookups.clear()
    kp.lint(model)
    assert lookups == {"adapter_of": 1, "paths_of": 1}
    lookups.clear()
    kp.apply_plan(model, kp.PrecisionPlan.training("mixed_bfloat16"))
    assert lookups == {"adapter_of": 1, "paths_of": 3}


@pytest.mark.every_stack
def test_a_view_of_what_has_no_inputs_yet(stack):
    """A model that is not built has layers, and no inputs; what is no model is refused."""
    unbuilt = stack.keras.Sequential([stack.keras.layers.Dense(2)], name="unbuilt")
    assert list(ModelView.of(unbuilt).layers) == ["dense"]
    with pytest.raises(ModelError, match="Expected a built model. Received: 'unbuilt'"):
        ModelView.of_built(unbuilt)
    with pytest.raises(ModelError, match="Expected a Keras model. Received: an object"):
        ModelView.of("model")
