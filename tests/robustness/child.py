"""``python -m robustness.child KIND``: reads a seed a line, and writes what became of that mutant, as JSON."""

import json
import logging
import os
import sys

__all__ = ["main"]


def main() -> None:
    """Answer until there are no more seeds; libraries write to standard output at will, so that answers have their own."""
    with os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8") as answers:
        os.dup2(2, 1)
        from robustness.trial import Reader

        logging.disable(logging.WARNING)
        reader = Reader(sys.argv[1])
        reader.read_sound()
        for line in sys.stdin:
            print(json.dumps(reader.read_mutant(int(line))), file=answers)


if __name__ == "__main__":
    main()
