"""Rules for graphs of operations: half-precision sums, softmax without its maximum, constants beyond float16."""

import math
from collections.abc import Callable, Iterator

from keras_precision.core.operation_graph import Operation, OperationGraph
from keras_precision.findings.advice import in_float32
from keras_precision.findings.finding import Finding, Severity, by_severity

__all__ = ["graph_findings"]

_ROUNDS_TO_ZERO = 2.0**-25  # the largest number that float16 rounds to 0
_FLOAT16_MAX = 65504.0
_LONG_SUM = 256  # terms, from which on the last change a float16 sum by less than its rounding error
_DEPTH = 8  # operations that are traced back
_PASS_THROUGH = ("cast", "add", "mul", "maximum", "minimum", "select")

_Rule = Callable[[OperationGraph, Operation], Iterator[Finding]]


def graph_findings(graph: OperationGraph) -> tuple[Finding, ...]:
    """Return the findings of a graph by severity, at most one per code, layer and source line.

    Example:
        >>> steps = (Operation("input", "float16"), Operation("exp", "float16", (0,), "attention", "mine.py:7"))
        >>> [(finding.code, finding.subject) for finding in graph_findings(OperationGraph(steps, "by hand"))]
        [('unshifted-exp', 'attention')]
    """
    findings: dict[tuple[str, str, str], Finding] = {}
    for operation in graph.operations:
        for rule in _RULES:
            for finding in rule(graph, operation):
                key = (finding.code, finding.subject, operation.line)
                findings[key] = by_severity((findings.get(key, finding), finding))[0]
    return by_severity(findings.values())


def _finding(code: str, severity: Severity, operation: Operation, message: str, advice: str) -> Finding:
    where = f"'{operation.path}'" if operation.path else "The model, outside of its layers,"
    line = f" ({operation.line})" if operation.line else ""
    return Finding(code, severity, operation.path or "model", f"{where} {message}{line}.", advice)


def _unshifted_exp(graph: OperationGraph, operation: Operation) -> Iterator[Finding]:
    """``exp`` of an unbounded value: usually a hand-written softmax."""
    if operation.kind != "exp" or not operation.line or _is_bounded(graph, operation, _DEPTH):
        return
    half = operation.dtype == "float16"
    yield _finding(
        "unshifted-exp", "warning" if half else "info", operation,
        f"takes exp in {operation.dtype} of values from which no maximum is subtracted: "
        f"float16 overflows above 11.1, bfloat16 and float32 above 88.7",
        "# keras.ops.softmax(x), or x - keras.ops.max(x, axis=-1, keepdims=True) before exp",
    )  # fmt: skip


def _is_bounded(graph: OperationGraph, operation: Operation, depth: int) -> bool:
    """Whether the inputs are bounded: reduced by their maximum, a negative absolute value or square, or clipped."""
    if not depth:
        return False
    variable = [source for source in graph.read_by(operation) if source.kind != "constant"]
    for source in variable:
        inputs = graph.read_by(source)
        if source.kind == "sub" and any(_leads_to(graph, subtrahend, ("max",), 3) for subtrahend in inputs[1:]):
            return True
        if source.kind == "neg" and any(negated.kind in ("abs", "square") for negated in inputs):
            return True
        if source.kind in ("minimum", "select"):
            return True
        if source.kind in ("cast", "mul", "div") and _is_bounded(graph, source, depth - 1):
            return True
    return not variable


def _leads_to(graph: OperationGraph, operation: Operation, kinds: tuple[str, ...], depth: int) -> bool:
    if operation.kind in kinds:
        return True
    follow = depth and operation.kind in (*_PASS_THROUGH, "other")
    return bool(follow) and any(_leads_to(graph, source, kinds, depth - 1) for source in graph.read_by(operation))


def _log_of_softmax(graph: OperationGraph, operation: Operation) -> Iterator[Finding]:
    if operation.kind != "log" or not operation.line:
        return
    inputs = graph.read_by(operation)
    if any(_leads_to(graph, source, ("softmax",), 4) or _is_manual_softmax(graph, source, 4) for source in inputs):
        yield _finding(
            "log-of-softmax", "warning" if operation.is_half else "info", operation,
            f"takes the logarithm of a softmax in {operation.dtype}: a probability below its range becomes 0, whose logarithm is -inf",
            "# keras.ops.log_softmax(x), or a loss with from_logits=True",
        )  # fmt: skip


def _is_manual_softmax(graph: OperationGraph, operation: Operation, depth: int) -> bool:
    inputs = graph.read_by(operation)
    if operation.kind == "div" and len(inputs) == 2:
        return _leads_to(graph, inputs[0], ("exp",), 2) and _leads_to(graph, inputs[1], ("sum",), 2)
    return (
        bool(depth)
        and operation.kind in _PASS_THROUGH
        and any(_is_manual_softmax(graph, source, depth - 1) for source in inputs)
    )


def _half_variance(graph: OperationGraph, operation: Operation) -> Iterator[Finding]:
    """``mean(x^2) - mean(x)^2``: the difference of two large numbers, with cancellation."""
    inputs = graph.read_by(operation)
    if operation.kind != "sub" or not operation.line or len(inputs) != 2:
        return
    minuend = _skip_casts(graph, inputs[0])
    subtrahend = _skip_casts(graph, inputs[1])
    is_mean_of_squares = minuend.kind in ("mean", "div") and _leads_to_square(graph, minuend, 3)
    is_squared_mean = subtrahend.kind == "square" and any(
        _skip_casts(graph, source).kind in ("mean", "div", "sum") for source in graph.read_by(subtrahend)
    )
    if is_mean_of_squares and is_squared_mean:
        yield _finding(
            "half-variance" if operation.is_half else "variance-by-squares", "warning" if operation.is_half else "info", operation,
            f"computes a variance in {operation.dtype} as mean(x**2) - mean(x)**2: cancellation loses digits, and the difference may be negative",
            "# keras.ops.var(keras.ops.cast(x, 'float32')), or mean((x - mean(x))**2)",
        )  # fmt: skip


def _skip_casts(graph: OperationGraph, operation: Operation) -> Operation:
    while operation.kind == "cast" and operation.reads:
        operation = graph.operations[operation.reads[0]]
    return operation


def _leads_to_square(graph: OperationGraph, operation: Operation, depth: int) -> bool:
    inputs = [_skip_casts(graph, source) for source in graph.read_by(operation)]
    if any(source.kind == "square" for source in inputs):
        return True
    return bool(depth) and any(
        source.kind in ("sum", "mean") and _leads_to_square(graph, source, depth - 1) for source in inputs
    )


def _zero_epsilon(graph: OperationGraph, operation: Operation) -> Iterator[Finding]:
    """A constant that guards against 0, and is itself 0 in float16."""
    if operation.kind not in ("add", "maximum") or not operation.line:
        return
    for constant in graph.read_by(operation):
        value = constant.value
        if constant.kind != "constant" or value is None or abs(value) > _ROUNDS_TO_ZERO:
            continue
        half = operation.dtype == "float16"
        if (half and operation.kind == "add") or abs(value) > 0:
            epsilon = f"{value:.3g}" if value else "a constant that is 0"
            yield _finding(
                "zero-epsilon", "error" if half else "info", operation,
                f"{'adds' if operation.kind == 'add' else 'takes the maximum with'} {epsilon} in {operation.dtype}; in float16, "
                "whose smallest positive number is 6e-8, it is 0, and does not prevent a division by 0",
                f"{in_float32(operation.path)}  # or epsilon = 1e-3" if operation.path else "epsilon = 1e-3  # in place of this constant",
            )  # fmt: skip


def _infinite_constant(graph: OperationGraph, operation: Operation) -> Iterator[Finding]:
    if operation.kind not in ("add", "sub", "mul", "div", "select") or not operation.line:
        return
    for operand in graph.read_by(operation):
        constant = _skip_casts(graph, operand)
        value = constant.value
        if (
            constant.kind != "constant"
            or value is None
            or not abs(value) > _FLOAT16_MAX
            or operation.dtype == "bfloat16"
        ):
            continue
        half = operation.dtype == "float16"
        if half or math.isfinite(value):
            yield _finding(
                "infinite-constant", "warning" if half else "info", operation,
                f"uses the constant {value:.3g} in {operation.dtype}, beyond float16's largest number, 65504: it becomes infinite, and "
                "0 * x and x - x become NaN",
                "# Mask with -3e4 instead of -1e9: it fits float16",
            )  # fmt: skip


def _infinite_mask(graph: OperationGraph, operation: Operation) -> Iterator[Finding]:
    """A mask of a large constant, computed in float32 and cast to float16."""
    if operation.kind != "cast" or operation.dtype != "float16" or not operation.line:
        return
    (mask, *_) = [*graph.read_by(operation), operation]
    operands = [_skip_casts(graph, operand) for operand in graph.read_by(mask)]
    large = [each for each in operands if each.kind == "constant" and abs(each.value or 0.0) > _FLOAT16_MAX]
    is_mask = mask.kind == "select" or (mask.kind == "mul" and any(_is_switch(graph, each, 4) for each in operands))
    if large and is_mask:
        yield _finding(
            "infinite-constant", "warning", operation,
            f"casts a mask of {large[0].value:.3g} to float16, beyond its largest number, 65504: it becomes infinite, and x - x becomes NaN",
            "# Mask with -3e4 instead of -1e9: it fits float16",
        )  # fmt: skip


def _is_switch(graph: OperationGraph, operation: Operation, depth: int) -> bool:
    """Whether a value comes from truth values or integers, as 0 and 1 do."""
    if operation.dtype.startswith(("bool", "int", "uint")):
        return True
    inputs = graph.read_by(operation) if operation.kind in ("cast", "sub", "add") and depth else []
    return any(_is_switch(graph, source, depth - 1) for source in inputs)


def _half_reduction(graph: OperationGraph, operation: Operation) -> Iterator[Finding]:
    if graph.accumulates_wide or operation.kind not in ("sum", "mean") or not operation.is_half:
        return
    if operation.terms >= _LONG_SUM and all(source.is_half for source in graph.read_by(operation)):
        yield _finding(
            "half-reduction", "warning", operation,
            f"adds up {operation.terms} numbers in {operation.dtype}: the sum overflows, or its last terms are rounded away",
            f"{in_float32(operation.path)}  # or keras.ops.sum(keras.ops.cast(x, 'float32'), axis)" if operation.path else "# keras.ops.sum(keras.ops.cast(x, 'float32'), axis)",
        )  # fmt: skip


def _redundant_casts(graph: OperationGraph, operation: Operation) -> Iterator[Finding]:
    """A cast to 16 bits that is immediately reversed."""
    if operation.kind != "cast" or operation.dtype != "float32":
        return
    (middle, *_) = [*graph.read_by(operation), operation]
    if middle.kind != "cast" or not middle.is_half:
        return
    (before, *_) = [*graph.read_by(middle), middle]
    if before.dtype == "float32" and before.kind != "constant":
        yield _finding(
            "casts-back-and-forth", "info", operation,
            f"casts float32 to {middle.dtype} and immediately back: digits are lost, and nothing is gained",
            "# Use the same policy for adjacent layers",
        )  # fmt: skip


_RULES: tuple[_Rule, ...] = (
    _unshifted_exp, _log_of_softmax, _half_variance, _zero_epsilon, _infinite_constant, _infinite_mask, _half_reduction, _redundant_casts,
)  # fmt: skip
