"""The examples as pages of the site: each script of examples/ is shown as it is, and links to it lead there."""

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

EXAMPLES = Path(__file__).parents[2] / "examples"
LINK = re.compile(r"\]\(\.\./examples(?:/(\w+)\.py)?\)")


def page_of(script: Path) -> str:
    """Return the page of a script: what its docstring says, and its source."""
    source = script.read_text(encoding="utf-8")
    told = str(ast.get_docstring(ast.parse(source)))
    title = script.stem.replace("_", " ").capitalize()
    return f"# {title}\n\n{told.splitlines()[0]}\n\n```python\n{source}```\n"


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each example."""
    for script in sorted(EXAMPLES.glob("*.py")):
        name = f"examples/{script.stem}.md"
        files.append(File.generated(config, name, content=page_of(script), inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links to a script lead to its page, and those to the folder to the list of examples."""
    return LINK.sub(lambda found: f"](examples/{found[1]}.md)" if found[1] else "](examples.md)", markdown)
