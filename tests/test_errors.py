"""The exceptions: their tree as it is drawn, and the offer of near names."""

import inspect
import re

import pytest

from keras_precision.core import errors
from keras_precision.core.errors import nearest

_DRAWN = re.compile(r"^(?P<indent>[│├└─ ]*)(?P<name>\w+)(?: \((?P<built_in>\w+)\))?(?:\s{2,}.+)?$")

Tree = dict[str, tuple[str | None, str | None]]


def drawn() -> Tree:
    """Return each exception that the docstring draws, with the one above it and the built-in one beside it."""
    lines = inspect.cleandoc(errors.__doc__).partition("::\n\n")[2].partition("\n\n")[0]
    tree: Tree = {}
    above: list[str] = []
    for line in inspect.cleandoc(lines).splitlines():
        match = _DRAWN.match(line)
        assert match is not None, f"not part of a tree: {line!r}"
        depth = len(match["indent"]) // 4
        above[depth:] = [match["name"]]
        tree[match["name"]] = (above[depth - 1] if depth else None, match["built_in"])
    return tree


def defined() -> Tree:
    """Return each exception of the module, with its own parent and the built-in one that it is as well."""
    tree: Tree = {}
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.PrecisionError):
            own = [base.__name__ for base in value.__bases__ if issubclass(base, errors.PrecisionError)]
            foreign = [base.__name__ for base in value.__bases__ if base.__name__ not in own and base is not Exception]
            assert max(len(own), len(foreign)) <= 1
            tree[name] = (*own, None)[0], (*foreign, None)[0]
    return tree


def test_the_docstring_draws_the_tree() -> None:
    """The docstring draws every exception in its place and in order."""
    assert list(drawn().items()) == list(defined().items())


def test_every_exception_is_public() -> None:
    """Everything that is raised or warned of can be imported by name."""
    assert sorted(errors.__all__) == sorted([*defined(), "PrecisionWarning"])
    assert issubclass(errors.PrecisionWarning, UserWarning)
    assert str(errors.PrecisionWarning("first,\n  \x1b[31msecond")) == r"first, \x1b[31msecond"


@pytest.mark.parametrize(
    ("name", "known", "options", "expected"),
    [
        ("stam", ["stem", "head"], {}, "Did you mean 'stem'?"),
        ("dense_9", ["conv", "dense_2", "dense_1"], {}, "Did you mean 'dense_2' or 'dense_1'?"),
        ("dense_9", ["dense_2", "dense_1"], {"limit": 1}, "Did you mean 'dense_2'?"),
        ("xyz", ["stem", "head"], {}, ""),
        ("stem", iter(()), {}, ""),
    ],
)
def test_nearest_offers_what_is_close(name: str, known: list[str], options: dict[str, int], expected: str) -> None:
    """Close names are offered, the closest first, and nothing where none is close."""
    assert nearest(name, known, **options) == expected
