"""Wrapping: what the wrappers of both Kerases have in common."""

import inspect
from typing import Any

from keras_precision._adapters import adapter_of

__all__ = ["Wrapping"]


class Wrapping:
    """What the wrappers of both Kerases have in common; it stands before ``keras.layers.Wrapper``."""

    def __init__(self, layer: Any, precision: str = "float32", *, dtype: Any = None, **kwargs: Any) -> None:
        kwargs["autocast"] = False  # call casts, because it must know what it was given
        super().__init__(layer, dtype=dtype or precision, **kwargs)  # type: ignore[call-arg]
        adapter = adapter_of(layer)
        policy = adapter.policy_name(self)
        for inner in adapter.walk(layer):
            adapter.set_policy(inner, policy)
        self.supports_masking = True
        self._accepted = set(inspect.signature(layer.call).parameters)

    def build(self, *shapes: Any) -> None:
        """Leave building to the layer, which is called with all its inputs."""
        self.built = True

    def call(self, inputs: Any, training: Any = None, mask: Any = None, **kwargs: Any) -> Any:
        """Call the layer in its precision.

        Args:
            inputs: What it is called with.
            training: Passed on, where the layer takes it.
            mask: Passed on, where the layer takes it.
            **kwargs: Passed on.

        Returns:
            What it returns, floats in the type of the first float among the inputs.
        """
        given = {"training": training, "mask": mask}
        kwargs |= {name: value for name, value in given.items() if value is not None and name in self._accepted}
        outer = next((kind for kind in map(_float_type, self.flat(inputs)) if kind), None)
        narrow = self.mapped(lambda tensor: self.cast_float(tensor, self.compute_dtype), inputs)  # type: ignore[attr-defined]
        outputs = self.layer(narrow, **kwargs)  # type: ignore[attr-defined]
        return outputs if outer is None else self.mapped(lambda tensor: self.cast_float(tensor, outer), outputs)

    def cast_float(self, tensor: Any, dtype: str) -> Any:
        """Return a tensor of floats in another type, and any other thing as it is."""
        kind = _float_type(tensor)
        return tensor if kind in (None, dtype) else self.cast(tensor, dtype)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Return the mask that the layer hands on."""
        return self.layer.compute_mask(inputs, mask)  # type: ignore[attr-defined]

    def flat(self, structure: Any) -> list[Any]:
        """Return the tensors of a structure."""
        raise NotImplementedError

    def mapped(self, function: Any, structure: Any) -> Any:
        """Return a structure of what a function makes of each tensor."""
        raise NotImplementedError

    def cast(self, tensor: Any, dtype: str) -> Any:
        """Return a tensor in another type."""
        raise NotImplementedError


def _float_type(tensor: Any) -> str | None:
    dtype = getattr(tensor, "dtype", None)
    name = str(getattr(dtype, "name", dtype)).removeprefix("torch.")
    return name if "float" in name else None
