"""Text as a terminal may show it: names come from files, and a control character in one would steer the terminal."""

import re

__all__ = ["one_line", "printable"]

# C0 without tab and line feed, DEL, C1, what turns the direction of text around, and halves of characters, which UTF-8
# cannot encode. https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return a text with its control characters escaped, except tabs and line feeds.

    Example:
        >>> print(printable("red: \x1b[31m"))
        red: \x1b[31m
    """
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    r"""Return a text as ``printable`` does, in one line.

    Example:
        >>> one_line("first,\n  second")
        'first, second'
    """
    return printable(" ".join(re.split(r"[ \t\r\n]+", text.strip())))
