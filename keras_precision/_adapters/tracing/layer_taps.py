"""Taps: every call of a layer seen from within a function that is being traced, forward and backward."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from keras_precision._adapters.tensors import Tensors, tensors_of
from keras_precision._adapters.training.training_state import Inside

__all__ = ["Call", "Taps"]


@dataclass
class Call:
    """One call of a layer, as numbers of taps.

    Attributes:
        path: The path of the layer, or of the one that it is within.
        within: Names below that path.
        kind: The name of its class.
        inputs: Numbers of the taps on its inputs.
        outputs: Numbers of those on its outputs.
    """

    path: str
    within: str
    kind: str
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)


class Taps:
    """Puts a tap on every float that goes into a layer or comes out of one.

    Layers inside a layer are looked into, too, unless it runs them in a loop, whose tensors nobody
    outside may keep.

    Args:
        inside: The model.
        paths: Layer path to layer.

    Attributes:
        calls: The calls of the last trace, in the order in which they ended.
        forward: Figures of each tap's tensor.
        probes: What each tap's gradient goes to.
    """

    def __init__(self, inside: Inside, paths: Mapping[str, Any]) -> None:
        self._inside, self._adapter = inside, inside.adapter
        self._tensors: Tensors = tensors_of(inside.adapter)
        self._paths = {id(layer): path for path, layer in paths.items()}
        self._stack: list[tuple[str, str]] = []
        self.calls: list[Call] = []
        self.forward: list[Any] = []
        self.probes: list[Any] = []
        self._reference: Any = None
        self._probe: Callable[[int], Any] = lambda _: None
        self._loops = 0  # layers around this one that run what is inside them in a loop

    @contextmanager
    def listening(self, reference: Any, probe: Callable[[int], Any]) -> Iterator[None]:
        """Put taps on what this thread calls, for a while.

        Args:
            reference: By which the framework tells tensors of this trace from those of inner ones.
            probe: Given the number of a tap, returns what its gradient goes to.
        """
        self.calls, self.forward, self.probes, self._stack, self._loops = [], [], [], [], 0
        self._reference, self._probe = reference, probe
        base, thread = self._adapter.keras.layers.Layer, threading.get_ident()
        original = base.__call__

        def tapped(layer: Any, *args: Any, **kwargs: Any) -> Any:
            place = self._place(layer) if threading.get_ident() == thread else None
            if place is None:
                return original(layer, *args, **kwargs)
            return self._call(place, layer, lambda *a, **k: original(layer, *a, **k), args, kwargs)

        base.__call__ = tapped
        try:
            yield
        finally:
            base.__call__ = original

    def _place(self, layer: Any) -> tuple[str, str] | None:
        """The path of a layer, and the names below it; None where nobody asks for it."""
        if self._loops or self._adapter.is_model(layer):
            return None
        if self._stack:
            path, within = self._stack[-1]
            return path, f"{within}/{layer.name}" if within else str(layer.name)
        known = self._paths.get(id(layer))
        return None if known is None else (known, "")

    def _call(
        self, place: tuple[str, str], layer: Any, proceed: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]
    ) -> Any:
        call = Call(*place, type(layer).__name__)
        arguments = [self._each(value, call.inputs) for value in args]
        options = {name: self._each(value, call.inputs) for name, value in kwargs.items()}
        loop = self._inside.runs_a_loop(layer)
        self._stack.append(place)
        self._loops += loop
        try:
            outputs = proceed(*arguments, **options)
        finally:
            self._loops -= loop
            self._stack.pop()
        outputs = self._each(outputs, call.outputs)
        if call.inputs or call.outputs:
            self.calls.append(call)
        return outputs

    def _each(self, value: Any, numbers: list[int]) -> Any:
        """A structure with a tap on each float in it."""
        if isinstance(value, dict):
            return {key: self._each(each, numbers) for key, each in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._each(each, numbers) for each in value)
        if not self._tensors.is_float(value) or not self._tensors.is_here(value, self._reference):
            return value
        number = len(self.probes)
        probe = self._probe(number)
        tapped = value if probe is None else self._tensors.tap(value, probe)
        self._inside.move_mask(value, tapped)
        self.probes.append(probe)
        self.forward.append(self._tensors.statistics(value))
        numbers.append(number)
        return tapped
