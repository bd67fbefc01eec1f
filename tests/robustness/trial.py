"""A trial: one mutant, drawn from a seed, and what became of reading it."""

import random
import shutil
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple

from keras_precision import PrecisionError
from robustness.mutants import MUTATORS, mutate_bytes
from robustness.readers import KINDS

__all__ = ["Outcome", "Reader"]


class Outcome(NamedTuple):
    """What became of a mutant: ``survived`` (it was read), ``refused`` (a PrecisionError) or ``failed``, and why."""

    verdict: str
    reason: str = ""


class Reader:
    """Draws mutants of one kind of file, and reads them."""

    def __init__(self, kind: str) -> None:
        self._kind = KINDS[kind]
        self._home = tempfile.TemporaryDirectory()
        self._sound = self._kind.make(Path(self._home.name))

    def read_sound(self) -> None:
        """Read the file that mutants are made of."""
        self._kind.read(self._sound)

    def read_mutant(self, seed: int) -> Outcome:
        """Read the mutant of a seed."""
        with tempfile.TemporaryDirectory() as home:
            folder = Path(home) / "files"
            shutil.copytree(self._sound.parent, folder)
            damage(folder, random.Random(seed), self._sound.name)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self._kind.read(folder / self._sound.name)
            except PrecisionError as error:
                return Outcome("refused", f"{type(error).__name__}: {error}")
            except Exception:  # noqa: BLE001 - whatever it is, it is what this looks for
                return Outcome("failed", traceback.format_exc())
            return Outcome("survived")


def damage(folder: Path, rng: random.Random, main: str) -> None:
    """Damage one file in a folder; one beside the main one may also be removed."""
    path = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    if path.name != main and rng.random() < 0.1:
        path.unlink()
        return
    mutator = MUTATORS.get(path.suffix[1:], mutate_bytes)
    path.write_bytes(mutator(path.read_bytes(), rng) if rng.random() < 0.98 else b"")
