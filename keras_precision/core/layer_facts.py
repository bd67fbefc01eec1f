"""LayerFacts: what a model says of a layer before anything runs."""

from dataclasses import dataclass

__all__ = ["HALF_TYPES", "LayerFacts"]

HALF_TYPES = ("float16", "bfloat16")


@dataclass(frozen=True)
class LayerFacts:
    """What a model says of one layer.

    Attributes:
        path: Its path.
        kind: The name of its class.
        policy: The name of its dtype policy.
        compute: The type that it computes in.
        activation: The name of its activation; empty where it has none.
        epsilon: What it adds before it divides; None where it has none.
        is_output: Whether the model puts out what it puts out.
        is_own: Whether its class is the user's own.
        width: Units or filters; None where it has none.
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
