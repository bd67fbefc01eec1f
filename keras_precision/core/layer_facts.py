"""LayerFacts: the properties of a layer that are known before the model runs."""

from dataclasses import dataclass

__all__ = ["HALF_TYPES", "LayerFacts"]

HALF_TYPES = ("float16", "bfloat16")


@dataclass(frozen=True)
class LayerFacts:
    """The properties of one layer of a model.

    Attributes:
        path: Its path.
        kind: The name of its class.
        policy: The name of its dtype policy.
        compute: Its compute dtype.
        activation: The name of its activation; empty if it has none.
        epsilon: The constant that it adds before dividing; None if it has none.
        is_output: Whether its output is an output of the model.
        is_own: Whether its class is defined by the user.
        width: Units or filters; None if it has neither.
    """

    path: str
    kind: str
    policy: str
    compute: str
    activation: str = ""
    epsilon: float | None = None
    is_output: bool = False
    is_own: bool = False
    width: int | None = None

    @property
    def is_half(self) -> bool:
        """Whether it computes in 16 bits."""
        return self.compute in HALF_TYPES
