"""What a model's graph says without data: half-precision sums, softmax without its maximum, constants that do not fit."""

import math
from collections.abc import Callable, Iterator

from keras_precision.core.operation_graph import Operation, OperationGraph
from keras_precision.findings.finding import Finding, Severity, in_order

__all__ = ["graph_findings"]

_TINY = 2.0**-25  # becomes 0 in float16
_LARGEST = 65504.0
_LONG = 256  # terms: from there on, the last of them change a float16 sum by less than it can tell
_DEPTH = 8  # operations that are followed back
_THROUGH = ("cast", "add", "mul", "maximum", "minimum", "select")

_Rule = Callable[[OperationGraph, Operation], Iterator[Finding]]


def graph_findings(graph: OperationGraph) -> tuple[Finding, ...]:
    """Judge what a model computes.

    Args:
        graph: Its operations.

    Returns:
        The findings, the worst first; of one kind at one place in one layer, the first.

    Example:
        >>> steps = (Operation("input", "float16"), Operation("exp", "float16", (0,), "attention", "mine.py:7"))
        >>> [(each.code, each.subject) for each in graph_findings(OperationGraph(steps, "by hand"))]
        [('unshifted-exp', 'attention')]
    """
    found: dict[tuple[str, str, str], Finding] = {}
    for operation in graph.operations:
        for rule in _RULES:
            for finding in rule(graph, operation):
                found.setdefault((finding.code, finding.subject, operation.line), finding)
    return in_order(found.values())


def _finding(code: str, severity: Severity, operation: Operation, message: str, advice: str) -> Finding:
    where = f"'{operation.path}'" if operation.path else "The model, outside of its layers,"
    line = f" ({operation.line})" if operation.line else ""
    return Finding(code, severity, operation.path or "model", f"{where} {message}{line}.", advice)


def _unshifted_exp(graph: OperationGraph, operation: Operation) -> Iterator[Finding]:
    """``exp`` of something that nobody bounded: a softmax written by hand, most often."""
    if operation.kind != "exp" or not operation.line or _is_bounded(graph, operation, _DEPTH):
        return
    half = operation.dtype == "float16"
    yield _finding(
        "unshifted-exp", "warning" if half else "info", operation,
        f"takes exp in {operation.dtype} of values of which no maximum is subtracted: "
        f"float16 overflows from 11.1 on, the others from 88.7 on",
        "keras.ops.softmax(x), or x - keras.ops.max(x, axis=-1, keepdims=True) before exp",
    )  # fmt: skip


def _is_bounded(graph: OperationGraph, operation: Operation, depth: int) -> bool:
    """Whether what is read cannot be large: less its maximum, minus a size, or clipped."""
    if not depth:
        return False
    for each in graph.read_by(operation):
        inside = graph.read_by(each)
        if each.kind == "sub" and any(_leads_to(graph, other, ("max",), 3) for other in inside[1:]):
            return True
        if each.kind == "neg" and any(other.kind in ("abs", "square") for other in inside):
            return True
        if each.kind in ("minimum", "select", "constant"):
            return True
        if each.kind in ("cast", "mul", "div") and _is_bounded(graph, each, depth - 1):
            return True
    return False


def _leads_to(graph: OperationGraph, operation: Operation, kinds: tuple[str, ...], depth: int) -> bool:
    if operation.kind in kinds:
        return True
    follow = depth and operation.kind in (*_THROUGH, "other")
    return bool(follow) and any(_leads_to(graph, each, kinds, depth - 1) for each in graph.read_by(operation))


def _log_of_softmax(graph: OperationGraph, operation: Operation) -> Iterator[Finding]:
    if operation.kind != "log" or not operation.line:
        return
    read = graph.read_by(operation)
    if any(_leads_to(graph, each, ("softmax",), 4) or _is_written_softmax(graph, each, 4) for each in read):
        yield _finding(
            "log-of-softmax", "warning" if operation.is_half else "info", operation,
            f"takes the logarithm of a softmax, in {operation.dtype}: where a probability is too small for the type, it is that of 0",
            "keras.ops.log_softmax(x), or a loss with from_logits=True",
        )  # fmt: skip


def _is_written_softmax(graph: OperationGraph, operation: Operation, depth: int) -> bool:
    inside = graph.read_by(operation)
    if operation.kind == "div" and len(inside) == 2:
        return _leads_to(graph, inside[0], ("exp",), 2) and _leads_to(graph, inside[1], ("sum",), 2)
    return (
        bool(depth)
        and operation.kind in _THROUGH
        and any(_is_written_softmax(graph, each, depth - 1) for each in inside)
    )


def _half_variance(graph: OperationGraph, operation: Operation) -> Iterator[Finding]:
    """``mean(x^2) - mean(x)^2``: two large numbers whose digits cancel."""
    inside = graph.read_by(operation)
    if operation.kind != "sub" or not operation.line or len(inside) != 2:
        return
    of_squares = _through_casts(graph, inside[0])
    squared = _through_casts(graph, inside[1])
    first = of_squares.kind in ("mean", "div") and _leads_to_square(graph, of_squares, 3)
    second = squared.kind == "square" and any(
        _through_casts(graph, each).kind in ("mean", "div", "sum") for each in graph.read_by(squared)
    )
    if first and second:
        yield _finding(
            "half-variance" if operation.is_half else "variance-by-squares", "warning" if operation.is_half else "info", operation,
            f"computes a variance in {operation.dtype} as mean(x**2) - mean(x)**2: their digits cancel, and the difference may be negative",
            "keras.ops.var(keras.ops.cast(x, 'float32')), or mean((x - mean(x))**2)",
        )  # fmt: skip


def _through_casts(graph: OperationGraph, operation: Operation) -> Operation:
    while operation.kind == "cast" and operation.reads:
        operation = graph.operations[operation.reads[0]]
    return operation


def _leads_to_square(graph: OperationGraph, operation: Operation, depth: int) -> bool:
    inside = [_through_casts(graph, each) for each in graph.read_by(operation)]
    if any(each.kind == "square" for each in inside):
        return True
    return bool(depth) and any(
        each.kind in ("sum", "mean") and _leads_to_square(graph, each, depth - 1) for each in inside
    )


def _zero_epsilon(graph: OperationGraph, operation: Operation) -> Iterator[Finding]:
    """A constant that keeps something from 0, and is 0 itself in float16."""
    if operation.kind not in ("add", "maximum") or not operation.line:
        return
    for each in graph.read_by(operation):
        value = each.value
        if each.kind != "constant" or value is None or abs(value) > _TINY:
            continue
        half = operation.dtype == "float16"
        if (half and operation.kind == "add") or abs(value) > 0:
            shown = f"{value:.3g}" if value else "a constant that is 0 there"
            yield _finding(
                "zero-epsilon", "error" if half else "info", operation,
                f"{'adds' if operation.kind == 'add' else 'takes the maximum with'} {shown} in {operation.dtype}; in float16, "
                "whose least number is 6e-8, that is 0, and guards against nothing",
                "epsilon = 1e-3, or compute this layer in float32",
            )  # fmt: skip


def _infinite_constant(graph: OperationGraph, operation: Operation) -> Iterator[Finding]:
    if operation.kind not in ("add", "sub", "mul", "div", "select") or not operation.line:
        return
    for each in graph.read_by(operation):
        value = each.value
        if each.kind != "constant" or value is None or not abs(value) > _LARGEST or operation.dtype == "bfloat16":
            continue
        half = operation.dtype == "float16"
        if half or math.isfinite(value):
            yield _finding(
                "infinite-constant", "warning" if half else "info", operation,
                f"uses the constant {value:.3g} in {operation.dtype}, beyond float16's largest number, 65504: as infinity, it turns "
                "0 * x and x - x into NaN",
                "-3e4 masks as well as -1e9 does: it fits float16",
            )  # fmt: skip


def _half_reduction(graph: OperationGraph, operation: Operation) -> Iterator[Finding]:
    if graph.accumulates_wide or operation.kind not in ("sum", "mean") or not operation.is_half:
        return
    if operation.terms >= _LONG and all(each.is_half for each in graph.read_by(operation)):
        yield _finding(
            "half-reduction", "warning", operation,
            f"adds up {operation.terms} numbers in {operation.dtype}: the sum overflows, or its last terms are rounded away",
            "keras.ops.sum(keras.ops.cast(x, 'float32'), axis), or compute this layer in float32",
        )  # fmt: skip


def _casts(graph: OperationGraph, operation: Operation) -> Iterator[Finding]:
    """Down to 16 bits and up again, with nothing computed in between."""
    if operation.kind != "cast" or operation.dtype != "float32":
        return
    (middle, *_) = [*graph.read_by(operation), operation]
    if middle.kind != "cast" or not middle.is_half:
        return
    (before, *_) = [*graph.read_by(middle), middle]
    if before.dtype == "float32" and before.kind != "constant":
        yield _finding(
            "casts-back-and-forth", "info", operation,
            f"is given {middle.dtype} that was float32 before, and is cast back at once: digits are lost, and nothing is won",
            "Give neighbouring layers one policy",
        )  # fmt: skip


_RULES: tuple[_Rule, ...] = (
    _unshifted_exp, _log_of_softmax, _half_variance, _zero_epsilon, _infinite_constant, _half_reduction, _casts,
)  # fmt: skip
