"""Mutants of every kind of file: each is read, or refused with an error of this package; ``benchmarks/robustness.py`` has more."""

import pytest

from robustness.readers import KINDS
from robustness.trial import Reader

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning"),
    pytest.mark.filterwarnings("ignore:The int8 file of:keras_precision.PrecisionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of KerasTuner, in its locks
]

COUNTS = {
    ".keras": 8,
    ".keras, quantization-aware": 4,
    ".keras of tf_keras": 3,
    ".h5": 8,
    ".h5 of tf_keras": 3,
    "search project": 5,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutant_is_read_or_refused(kind: str) -> None:
    """No raw error; the sound file is read, some mutants are refused, and of some kinds some survive."""
    reader = Reader(kind)
    reader.read_sound()
    outcomes = [reader.read_mutant(seed) for seed in range(COUNTS.get(kind, 40))]
    failures = [outcome.reason for outcome in outcomes if outcome.verdict == "failed"]
    assert not failures, failures[0]
    assert any(outcome.verdict == "refused" for outcome in outcomes)
