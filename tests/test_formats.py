"""Number formats: their limits against every bit pattern, and how arrays fit them."""

import ml_dtypes
import numpy as np
import pytest

from keras_precision import formats
from keras_precision.core.errors import DataError, InputError, UnknownPrecisionError
from keras_precision.core.formats.deployment import (
    DEPLOYMENT_PRECISIONS,
    FILE_FORMATS,
    activation_precision,
    supported_precisions,
)
from keras_precision.core.formats.processor_flags import RECORDED_FLAGS, native_flags
from keras_precision.report.tables.formats import cheat_sheet

TYPES = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}


@pytest.mark.parametrize(("name", "kind"), TYPES.items(), ids=TYPES)
def test_limits_are_those_of_every_bit_pattern(name, kind):
    """Largest, smallest, epsilon and the number of normal numbers are found by decoding all patterns of bits."""
    number = formats.named(name)
    unsigned = np.dtype(f"u{number.bits // 8}")
    with np.errstate(invalid="ignore"):  # half of what is decoded is NaN
        every = np.arange(2**number.bits, dtype=np.int64).astype(unsigned).view(kind).astype(np.float64)
    positive = np.unique(every[np.isfinite(every) & (every > 0)])
    assert positive[-1] == number.largest == -number.lowest
    assert positive[0] == number.smallest_subnormal
    assert positive[positive > 1][0] - 1 == number.epsilon
    steps = np.diff(positive)
    assert positive[:-1][steps > steps[0]][0] / 2 == number.smallest_normal  # the spacing is even until twice that
    assert number.bits == 1 + number.exponent_bits + number.mantissa_bits


def test_float32_and_tf32():
    """float32 has NumPy's limits; TF32 the exponent of float32 and the mantissa of float16."""
    wide, tensor = formats.FLOAT32, formats.TF32
    limits = np.finfo(np.float32)
    assert (wide.largest, wide.smallest_normal, wide.smallest_subnormal, wide.epsilon) == tuple(
        map(float, (limits.max, limits.smallest_normal, limits.smallest_subnormal, limits.eps))
    )
    assert (wide.exponent_bits, wide.mantissa_bits) == (limits.nexp, limits.nmant)
    assert tensor.epsilon == float(np.finfo(np.float16).eps)
    assert tensor.smallest_normal == wide.smallest_normal
    assert np.float64(tensor.largest) == np.float64(wide.largest) * (2 - 2.0**-10) / (2 - 2.0**-23)
    assert wide.unit_roundoff == 2.0**-24


def test_integers_have_the_limits_of_two_s_complement():
    """INT8 and INT4 reach from -2^(n-1) to 2^(n-1) - 1."""
    assert (formats.INT8.lowest, formats.INT8.largest, formats.INT8.bits) == (-128, 127, 8)
    assert (formats.INT4.lowest, formats.INT4.largest, formats.INT4.bits) == (-8, 7, 4)
    assert formats.INT4.is_integer
    assert not formats.FLOAT16.is_integer


def test_flags_are_those_that_environments_know():
    """A flag that a format looks for is one that ``Environment`` reads from the processor."""
    assert {flag for number in formats.FORMATS.values() for flag in number.cpu_flags} <= RECORDED_FLAGS


@pytest.mark.parametrize(("name", "kind"), TYPES.items(), ids=TYPES)
def test_rounding_is_that_of_the_type(rng, name, kind):
    """Numbers of all sizes are rounded as the type of NumPy or ml_dtypes does it."""
    values = (rng.normal(size=4000) * 10.0 ** rng.uniform(-12, 8, 4000)).astype(np.float32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(formats.rounded(values, name), values.astype(kind).astype(np.float32))


def test_rounding_to_tf32(rng):
    """TF32 keeps ten bits of the fraction, takes the nearest, and the even one of two that are as near."""
    values = rng.normal(size=1000).astype(np.float32)
    fraction, exponent = np.frexp(values.astype(np.float64))
    expected = np.ldexp(np.rint(fraction * 2**11) / 2**11, exponent)  # rint takes the even one
    np.testing.assert_array_equal(formats.rounded(values, "tf32"), expected)
    assert formats.rounded([1 + 2.0**-11, 1 + 3 * 2.0**-11], "tf32").tolist() == [1.0, 1 + 2.0**-9]
    special = [np.inf, -np.inf, np.nan, 0.0, formats.TF32.largest]
    np.testing.assert_array_equal(formats.rounded(special, "tf32"), np.asarray(special, np.float32))
    assert formats.rounded(np.finfo(np.float32).max, "tf32") == np.inf


def test_what_overflows_vanishes_and_turns_subnormal():
    """The shares are counted among the finite values."""
    values = [np.nan, np.inf, 1e-9, 1e-6, 1.0, 1.0, 65504.0, 7e4, 0.0, -8e4]
    found = formats.fit(values, "float16")
    assert (found.count, found.non_finite) == (10, pytest.approx(0.2))
    assert (found.overflow, found.underflow, found.subnormal) == (2 / 8, 1 / 8, 1 / 8)
    assert formats.fit(values, "bfloat16").overflow == 0
    eight = formats.fit([448.0, 464.0, 465.0, 1000.0], "float8_e4m3fn")
    assert eight.overflow == 0.5  # it has no infinities: NaN, and to 464 the nearest is 448


def test_errors_are_those_of_rounding():
    """Largest and mean error and the ratio in dB follow their definitions; what overflows is left out."""
    found = formats.fit([1 + 2.0**-12, 2.0, 1e9], "float16")
    assert found.max_error == 2.0**-12
    assert found.mean_error == 2.0**-13
    assert found.snr_db == pytest.approx(10 * np.log10(((1 + 2.0**-12) ** 2 + 4) / 2.0**-24))
    assert formats.fit([1.0, 0.5], "float16").snr_db == np.inf
    assert formats.fit([1e-20, 1e-30], "float16").snr_db == 0.0
    assert formats.fit([1e9], "float16").snr_db == -np.inf


def test_uniform_noise_has_the_expected_ratio(rng):
    """A full-range uniform signal in 8 bits has 6.02 dB a bit: SNR = 20 log10(2^8) (less the integer left unused)."""
    found = formats.fit(rng.uniform(-1, 1, 200_000), "int8")
    assert found.snr_db == pytest.approx(20 * np.log10(255), abs=0.1)


def test_the_scale_is_the_best_of_those_tried(rng):
    """With an outlier, the range is narrowed: no other scale of a fine grid has half the error."""
    values = np.append(rng.normal(size=5000), 30.0)
    found = formats.fit(values, "int4")
    assert found.overflow > 0
    assert found.scale < 30 / 7

    def lost(scale):
        return np.square(values - scale * np.clip(np.rint(values / scale), -7, 7)).sum()

    assert lost(found.scale) <= lost(30 / 7)
    assert lost(found.scale) <= 1.02 * min(lost(share * 30 / 7) for share in np.linspace(0.2, 1, 500))
    assert found.mean_error == pytest.approx(
        np.abs(values - found.integers.real(found.integers.quantized(values))).mean()
    )


def test_zero_point_and_channels(rng):
    """An asymmetric fit uses all integers and represents 0 exactly; each channel has a scale of its own."""
    positive = rng.uniform(0, 5.1, 1000)
    loose, tight = (formats.fit(positive, "int8", symmetric=way) for way in (True, False))
    assert loose.zero_point == 0
    assert tight.zero_point == -128
    assert tight.snr_db > loose.snr_db + 5
    assert tight.integers.real(tight.integers.quantized(np.zeros(1))) == 0
    channels = rng.normal(size=(16, 64, 3)) * [1, 10, 100]
    each = formats.fit(channels, "int8", axis=-1)
    assert each.scale.shape == each.zero_point.shape == (3,)
    assert (np.diff(each.scale) > 0).all()
    assert each.snr_db > formats.fit(channels, "int8").snr_db
    assert each.integers.quantized(channels).dtype == np.int8
    one = formats.fit(channels[..., 1], "int8")
    assert one.scale == each.scale[1]


def test_zeros_fit_everything():
    """An array of zeros, or a channel of zeros, loses nothing."""
    for name in formats.FORMATS:
        found = formats.fit(np.zeros((2, 2)), name, axis=0 if formats.named(name).is_integer else None)
        assert (found.max_error, found.overflow, found.underflow, found.snr_db) == (0, 0, 0, np.inf)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "Received: an empty array"),
        ([np.nan, np.inf], "Received: 2 values of which none is finite"),
        (["a"], "Expected an array of real numbers. Received: list"),
        ([1j], "its type is complex128"),
        ([[1.0], [1.0, 2.0]], "Expected an array of real numbers"),
        (np.array([object()]), "its type is object"),
    ],
)
def test_what_cannot_be_fitted(values, message):
    """Empty arrays, arrays without a finite number, and arrays of other things are refused."""
    with pytest.raises(DataError, match=message):
        formats.fit(values, "float16")


def test_types_that_are_taken():
    """Integers, truth values and the types of ml_dtypes are numbers."""
    for kind in (np.int32, np.bool_, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, np.float16):
        assert formats.fit(np.ones(3, kind), "int8").max_error == pytest.approx(0)


def test_wrong_arguments():
    """Unknown formats, axes that are none, and float formats where integers are due are named."""
    with pytest.raises(UnknownPrecisionError, match="Received: 'float61'. Did you mean 'float16'"):
        formats.fit([1.0], "float61")
    with pytest.raises(InputError, match=r"Expected an axis of an array of shape \(1,\). Received: 1"):
        formats.fit([1.0], "int8", axis=1)
    with pytest.raises(InputError, match="Received: axis=0 for 'float16'"):
        formats.fit([1.0], "float16", axis=0)
    with pytest.raises(InputError, match="Expected a float format. Received: 'int8'"):
        formats.rounded([1.0], "int8")


def test_the_cheat_sheet_has_every_format():
    """Each format has a row with its limits and what computes in it."""
    lines = cheat_sheet().splitlines()
    for name in formats.FORMATS:
        assert any(line.startswith(f"│ {name} ") for line in lines), name
    half = next(line for line in lines if line.startswith("│ float16 "))
    for part in ("16", "5", "10", "65504", "6.1e-05", "5.96e-08", "0.000977", "NVIDIA 7.0", "avx512_fp16"):
        assert part in half + lines[lines.index(half) + 1]
    assert "-128 to 127" in cheat_sheet()


@pytest.mark.parametrize(
    ("policy", "flag"), [("mixed_float16", "asimdhp"), ("mixed_bfloat16", "bf16"), ("int8", "i8mm")]
)
def test_a_format_is_native_by_the_flags_of_every_maker(policy, flag):
    """ARM's flags count as Intel's do, in the formats and in what is recorded of a machine; no flag is no hardware."""
    assert native_flags(policy, ("sve", flag)) == (flag,)
    assert native_flags(policy, ("sve",)) == ()
    assert flag in RECORDED_FLAGS
    assert flag in formats.FORMATS[policy.removeprefix("mixed_")].cpu_flags


def test_deployment_precisions_are_one_table():
    """Weights are symmetric; what needs ranges has integer activations; every format of files holds float32 and int8."""
    for name, precision in DEPLOYMENT_PRECISIONS.items():
        assert name == precision.name
        assert precision.needs_ranges == (precision.activation_type != "float32")
        assert activation_precision(precision.without_weights) == precision.without_weights
    assert [DEPLOYMENT_PRECISIONS[name].largest_weight for name in ("int8", "int16x8", "int4")] == [127, 127, 7]
    for file_format in FILE_FORMATS:
        assert {"float32", "float16", "int8"} <= set(supported_precisions(file_format))
    assert supported_precisions("onnx") == ("float32", "float16", "int8")
