"""smallest_high: the layers that must stay high, by bisection, from runs in which groups of layers are lowered."""

from collections.abc import Callable, Sequence

__all__ = ["smallest_high"]


def smallest_high(names: Sequence[str], is_stable: Callable[[Sequence[str]], bool]) -> list[str]:
    """Return the layers that cannot be lowered.

    While lowering all that is left is unstable, the shortest beginning of it that is unstable is found by bisection, and the
    layer that it ends with is kept high. What is known to be stable is not run again: k layers of n take
    about k log2(n) + k + 1 runs. A set is taken to be unstable if a part of it is.

    Args:
        names: The layers, in the order of the model.
        is_stable: Runs with these layers lowered, and all others high.

    Returns:
        Those that stay high, in the order in which they were found.

    Example:
        >>> runs = []
        >>> def is_stable(lowered):
        ...     runs.append(lowered)
        ...     return not {"f", "k"} & set(lowered)
        >>> smallest_high("abcdefghijklmnop", is_stable), len(runs)
        (['f', 'k'], 11)
    """
    high: list[str] = []
    low = list(names)
    stable = 0  # so many of them are known to be stable together
    while len(low) > stable and not is_stable(low):
        unstable = len(low)
        while unstable - stable > 1:
            middle = (stable + unstable) // 2
            if is_stable(low[:middle]):
                stable = middle
            else:
                unstable = middle
        high.append(low.pop(unstable - 1))
    return high
