"""``python -m generated.child``: reads descriptions from stdin, one JSON object a line, and answers each with a row.

A request names the checks to run. A row has a verdict per check: ``"holds"``, ``"violated"``, ``"refused"`` or
``"skipped"``, each with a reason where there is one. What runs is announced first, so that a process that ends says where.
"""

import importlib
import json
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Answer requests until stdin ends."""
    rows, sys.stdout = sys.stdout, sys.stderr  # whatever else prints shall not be taken for a row
    stack = os.environ["KERAS_PRECISION_STACK"]
    keras = importlib.import_module("tf_keras" if stack == "tf_keras" else "keras")
    logging.disable(logging.WARNING)
    for line in sys.stdin:

        def answer(row: dict[str, Any]) -> None:
            print(json.dumps(row), file=rows, flush=True)

        answer(_row(keras, stack, json.loads(line), lambda name: answer({"runs": name})))


def _row(keras: Any, stack: str, request: Any, announce: Callable[[str], None]) -> dict[str, Any]:
    """Run the checks of a request."""
    from generated.invariants import INVARIANTS
    from generated.trial import Trial

    verdicts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(keras, stack, request["description"], Path(folder), announce)
        try:
            trial.subject  # noqa: B018 - built here, so that what Keras refuses is no violation
        except Exception as error:  # noqa: BLE001
            return {"invalid": f"{type(error).__name__}: {error}"}
        for name in request["checks"]:
            announce(name)
            start = _cpu_seconds()
            verdicts[name] = {**_verdict(INVARIANTS[name], trial), "seconds": round(_cpu_seconds() - start, 2)}
    return {"verdicts": verdicts}


def _cpu_seconds() -> float:
    """Return the processor's time for this process and its children, which other work does not lengthen."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _verdict(check: Any, trial: Any) -> dict[str, str]:
    from generated.trial import Refused, Skipped, Violation

    try:
        check(trial)
    except Violation as violation:
        return {"verdict": "violated", "reason": str(violation)}
    except Refused as refused:
        return {"verdict": "refused", "reason": str(refused)[:600]}
    except Skipped as skipped:
        return {"verdict": "skipped", "reason": str(skipped)}
    except Exception as error:  # noqa: BLE001 - a check that breaks is a fault, of the check or of the file
        return {
            "verdict": "violated",
            "reason": f"the check itself: {type(error).__name__}: {str(error)[:300]}",
            "where": traceback.format_exc()[-900:],
        }
    return {"verdict": "holds"}


if __name__ == "__main__":
    main()
