"""What the API pages need to know of this package's docstrings."""

import re
from typing import Any

from griffe import Class, Extension, Object

EXAMPLE = re.compile(r"^(\s*)Example:$", re.MULTILINE)
LITERAL = re.compile(r"^\s*::\n", re.MULTILINE)  # in front of an indented block, which Markdown takes for code anyway


class Docstrings(Extension):
    """Reads ``Example:`` as the section that griffe calls ``Examples:``, and ``__new__`` as what makes an instance."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rename the section, so that it becomes code and not quotations, and leave out reStructuredText's marks."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(r"\1Examples:", LITERAL.sub("", obj.docstring.value))

    def on_class(self, *, cls: Class, **kwargs: Any) -> None:
        """Let a class that is made by ``__new__`` show the arguments of that."""
        if "__new__" in cls.members and "__init__" not in cls.members:
            cls.members["__init__"] = cls.members["__new__"]
