"""Environment: what machine and software a figure was measured with."""

import copy
import json
import pickle
import platform
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from keras_precision.core import environment
from keras_precision.core.environment import Environment
from keras_precision.core.errors import FileFormatError
from keras_precision.core.formats.processor_flags import RECORDED_FLAGS
from keras_precision.core.system.json_documents import Fields

FULL = Environment(
    python="3.11.7",
    system="Linux x86_64",
    processor="A processor",
    cores=4,
    cpu_flags=("avx2", "fma"),
    versions={"keras": "3.15.1"},
    backend="jax",
    device="A GPU",
    tf32=False,
    sources={"peak_memory_mb": "the allocator"},
)


def through_json(value: Environment) -> Environment:
    """Return what JSON makes of an environment."""
    return Environment.from_json(Fields(json.loads(json.dumps(value.to_json())), "text"))


@pytest.mark.parametrize("value", [FULL, Environment(), Environment.here()], ids=["full", "empty", "here"])
@pytest.mark.parametrize(
    "duplicate",
    [lambda value: pickle.loads(pickle.dumps(value)), copy.copy, copy.deepcopy, through_json],
    ids=["pickle", "copy", "deepcopy", "json"],
)
def test_copies_are_equal(duplicate: Callable[[Environment], Environment], value: Environment) -> None:
    """Each way to copy an environment keeps everything."""
    twin = duplicate(value)
    assert twin == value
    assert hash(twin) == hash(value)


@pytest.mark.parametrize("name", [field.name for field in fields(Environment)])
def test_every_field_is_part_of_equality(name: str) -> None:
    """Two environments that differ in one field are two."""
    other = replace(FULL, **{name: getattr(Environment(), name)})
    assert other != FULL
    assert through_json(other) == other


@pytest.mark.parametrize("name", ["versions", "sources"])
def test_nothing_can_be_changed(name: str) -> None:
    """Fields are frozen, and so are the mappings."""
    with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{name}'"):
        setattr(FULL, name, {})
    with pytest.raises(TypeError, match="does not support item assignment"):
        getattr(FULL, name)["more"] = "1"


@pytest.mark.parametrize(
    ("name", "value", "same"),
    [
        ("python", "3.12", True),
        ("versions", {}, True),
        ("backend", "torch", True),
        ("sources", {}, True),
        ("system", "Linux aarch64", False),
        ("processor", "Another", False),
        ("cores", 8, False),
        ("device", "Another", False),
    ],
)
def test_times_of_one_machine_can_be_compared(name: str, value: Any, *, same: bool) -> None:
    """The machine is system, processor, cores and device; software is no part of it."""
    assert (replace(FULL, **{name: value}).machine == FULL.machine) == same


def test_here_describes_this_machine() -> None:
    """This machine has a Python, packages with versions, and at least one core."""
    here = Environment.here(backend="tensorflow", tf32=True, sources={"latency_ms": "a clock"})
    assert here.python == platform.python_version()
    assert here.versions["numpy"] == version("numpy")
    assert here.cores >= 1
    assert here.processor
    assert here.device == here.processor
    assert list(here.cpu_flags) == sorted(set(here.cpu_flags) & RECORDED_FLAGS)
    assert (here.backend, here.tf32, here.sources) == ("tensorflow", True, {"latency_ms": "a clock"})


def test_here_names_the_device() -> None:
    """A device other than the processor is named."""
    assert Environment.here(device="A GPU").machine[-1] == "A GPU"


def test_sources_are_added_to_a_copy() -> None:
    """``with_sources`` adds and replaces, and leaves the environment as it was."""
    more = FULL.with_sources({"latency_ms": "a clock"})
    assert more == replace(FULL, sources={"peak_memory_mb": "the allocator", "latency_ms": "a clock"})
    assert more.with_sources({"latency_ms": "another"}).sources["latency_ms"] == "another"
    assert FULL.sources == {"peak_memory_mb": "the allocator"}


X86 = "processor\t: 0\nmodel name\t: A: processor\nflags\t\t: fpu f16c avx2 amx_int8\n\nprocessor\t: 1\nflags\t: fma\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd i8mm bf16\n\nprocessor\t: 1\n"


@pytest.mark.parametrize(
    ("text", "name", "flags"),
    [
        (X86, "A: processor", ("amx_int8", "avx2", "f16c")),
        (ARM, "armv8", ("bf16", "i8mm")),
        ("", "armv8", ()),
        (OSError("there is no such file"), "armv8", ()),
    ],
    ids=["x86", "arm", "empty", "none"],
)
def test_the_processor_is_read_from_the_system(
    monkeypatch: pytest.MonkeyPatch, text: str | OSError, name: str, flags: tuple[str, ...]
) -> None:
    """Name and flags come from the first processor; where they cannot be read, the architecture stands in."""

    def read_text(*_: object, **__: object) -> str:
        if isinstance(text, OSError):
            raise text
        return text

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(platform, "machine", lambda: "armv8")
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert environment._processor.__wrapped__() == (name, flags)


@pytest.mark.parametrize("name", [field.name for field in fields(Environment)])
def test_a_missing_field_is_refused(name: str) -> None:
    """Every field must be in a file."""
    values = FULL.to_json()
    del values[name]
    with pytest.raises(FileFormatError, match=rf"^here: expected the field '{name}' \(.*Received: no such field\."):
        Environment.from_json(Fields(values, "here"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("python", 3.11, "'python' to be text. Received: 3.11."),
        ("cores", True, "'cores' to be a whole number. Received: True."),
        ("cores", 2.0, "'cores' to be a whole number. Received: 2.0."),
        ("cpu_flags", "avx2", "'cpu_flags' to be a list. Received: 'avx2'."),
        ("cpu_flags", ["avx2", None], "'cpu_flags[1]' to be text. Received: None."),
        ("versions", {"keras": 3}, "'versions.keras' to be text. Received: 3."),
        ("sources", [], "'sources' to be an object. Received: []."),
        ("tf32", "no", "'tf32' to be true or false or null. Received: 'no'."),
        ("tf32", 0, "'tf32' to be true or false or null. Received: 0."),
    ],
)
def test_a_field_of_another_type_is_refused(name: str, value: Any, message: str) -> None:
    """The message names the field, what was expected and what stands there."""
    with pytest.raises(FileFormatError, match=f"^here: expected the field {re.escape(message)}$"):
        Environment.from_json(Fields(FULL.to_json() | {name: value}, "here"))


def test_an_unknown_field_is_refused() -> None:
    """A field that this version does not know is not dropped in silence."""
    with pytest.raises(FileFormatError, match=r"^here: expected only the fields python, .* the field 'gpus'\."):
        Environment.from_json(Fields(FULL.to_json() | {"gpus": []}, "here"))
