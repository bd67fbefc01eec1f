"""hardware: what the flags say, and what was measured."""

import importlib

import pytest

import keras_precision as kp
from keras_precision._adapters import adapter_for_file
from keras_precision.core.environment import Environment
from keras_precision.mixed_precision import hardware


@pytest.fixture(scope="module")
def measured():
    """This machine, measured with matrices and images that are small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "_SMALL", {"matmul": 32, "image": 8, "batch": 2, "channels": 4})
        patch.setattr(hardware, "_ROUNDS", 2)
        return kp.hardware(measure=True)


@pytest.mark.every_stack
def test_every_format_is_judged_and_the_float_formats_are_measured(stack, measured):
    """There is a row for every format, a time for every format of Keras, and how it was measured."""
    assert {row.subject for row in measured.select("accelerated")} == set(kp.formats.FORMATS)
    for metric in ("matmul_ms", "convolution_ms", "depthwise_ms"):
        times = {row.subject: row.value for row in measured.select(metric)}
        assert {"float32", "bfloat16", "float16"} <= set(times)
        assert min(times.values()) > 0
        assert "median" in measured.environment.sources[metric]
    assert measured.environment.backend == ("tensorflow" if stack.name == "tf_keras" else stack.name)


@pytest.mark.every_stack
def test_measuring_leaves_tf32_as_it_was(stack, measured):
    """The switch of TF32, which is off while float32 is measured, is put back."""
    if stack.name == "jax":
        assert importlib.import_module("jax").config.jax_default_matmul_precision is None
    elif stack.name == "torch":
        assert importlib.import_module("torch").backends.cudnn.conv.fp32_precision == "tf32"
    else:
        assert importlib.import_module("tensorflow").config.experimental.tensor_float_32_execution_enabled()


def test_the_table_shows_speedups(measured):
    """Every format has a row, and every measured operation a time and a speedup against float32."""
    text = kp.render(measured, format="markdown")
    assert "| Format | In hardware | Matrix product | Speedup | Convolution | Speedup | Depthwise | Speedup |" in text
    wide = next(line for line in text.splitlines() if line.startswith("| float32 |"))
    assert wide.count("| 1.00x") == 3
    assert kp.render(kp.hardware(), format="markdown").splitlines()[2] == "| Format | In hardware |"


class Device:
    """A device with a name, and perhaps a compute capability."""

    def __init__(self, device="", capability=None, *, is_tpu=False):
        self.device, self.compute_capability, self.is_tpu = device, capability, is_tpu


CPU = Environment(cpu_flags=("f16c", "avx512_bf16", "avx512_vnni"))


@pytest.mark.parametrize(
    ("compute", "environment", "expected"),
    [
        (Device(), CPU, {"float32", "bfloat16", "int8"}),  # f16c converts, and does not compute
        (Device(), Environment(), {"float32"}),
        (Device("H200", (9, 0)), CPU, {"float32", "tf32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "int8"}),
        (Device("V100", (7, 0)), CPU, {"float32", "float16"}),
        (Device("TPU", is_tpu=True), CPU, {"float32", "bfloat16", "int8"}),
        (Device("Apple GPU"), CPU, {"float32"}),
    ],
    ids=["processor", "plain", "hopper", "volta", "tpu", "unknown"],
)  # fmt: skip
def test_what_the_flags_promise(compute, environment, expected):
    """A format is accelerated if the flags, or the compute capability, say so."""
    accelerated = {
        name for name, number in kp.formats.FORMATS.items() if hardware._accelerated(number, compute, environment)
    }
    assert accelerated == expected


def test_a_turing_card_may_have_no_tensor_cores(monkeypatch):
    """Compute capability 7.5 promises more than the GTX 16 series holds, and the notes say so."""
    notes = list(hardware._reasons(Device("NVIDIA GeForce", (7, 5)), CPU))
    assert notes[0] == "NVIDIA GeForce: compute capability 7.5."
    assert "no tensor cores" in notes[1]
    assert list(hardware._reasons(Device("Apple GPU"), CPU)) == ["Apple GPU: compute capability unknown."]
    assert len(list(hardware._reasons(adapter_for_file().compute, CPU))) == 1
