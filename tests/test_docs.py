"""The documentation: its code runs, its tables are those of the package, its links lead somewhere."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.cli.commands import COMMANDS
from keras_precision.report import markdown
from keras_precision.report.tables.formats import formats_table

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
TEXTS = [*PAGES, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))]

METRICS_PAGE = ROOT / "docs" / "plans-and-results.md"


def label(path: Path) -> str:
    """Return how a page is called in the report of a test."""
    return str(path.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Return the fenced blocks of a page in a language: the line where each begins, and its text."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start()) + 1, match[1]) for match in found]


def without_code(text: str) -> str:
    """Return the prose of a page: links in code are no links."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the names that a page's headings can be reached by."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table row in a text."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| :--")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def metrics_table() -> str:
    """Return METRICS as the documentation shows it."""
    body = [
        (f"`{metric.name}`", metric.unit or "-", metric.better or "-", metric.meaning.replace("|", "\\|"))
        for metric in kp.METRICS.values()
    ]
    lines = [("metric", "unit", "better", "meaning"), (":--",) * 4, *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def test_the_cheat_sheet_is_that_of_the_package() -> None:
    """The documentation's table of number formats is the one that the command line prints."""
    shown = markdown.draw(formats_table()).split("\n\n")[1]
    assert shown in (ROOT / "docs" / "number-formats.md").read_text(encoding="utf-8")


def test_the_api_has_every_public_name_once() -> None:
    """The page of the API has each public name, and no other."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: keras_precision\.(\w+)$", text, re.MULTILINE)) == sorted(kp.__all__)


def test_the_page_of_examples_has_every_example() -> None:
    """Each script has a row, and each row a script."""
    text = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\w+\.py)\]\(\.\./examples/\1\) \| \S", text, re.MULTILINE)
    assert sorted(listed) == sorted(script.name for script in (ROOT / "examples").glob("*.py"))


def test_each_finding_that_troubleshooting_names_exists() -> None:
    """The page of symptoms names findings by codes that rules give."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "keras_precision").glob("**/*.py"))
    named = set(re.findall(r"`([a-z]+(?:-[a-z0-9]+)+)`", text)) - {"tflite-runtime"}
    assert len(named) > 15
    assert {name for name in named if f'"{name}"' not in code} == set()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as a site, built with every warning an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_the_site_has_every_page(site: Path) -> None:
    """Each page of docs/ and each example is a page of the site, and the API shows docstrings."""
    there = {page.parent.relative_to(site).as_posix() for page in site.glob("**/index.html")}
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages | {f"examples/{script.stem}" for script in (ROOT / "examples").glob("*.py")} <= there
    assert "global dtype policy" in (site / "api" / "index.html").read_text(encoding="utf-8")


def test_the_site_asks_no_server(site: Path) -> None:
    """Scripts, styles, fonts and images lie in the site itself."""
    fetched = r"""<(?:script|img|iframe)[^>]*\ssrc=["']?(?:https?:)?//|<link[^>]*\shref=["']?(?:https?:)?//"""
    pages = list(site.glob("**/*.html"))
    assert len(pages) > 30
    assert [page for page in pages if re.search(fetched, page.read_text(encoding="utf-8"))] == []


@pytest.fixture(scope="module")
def known_to_readers() -> MappingProxyType[str, Any]:
    """What the README takes for granted: a small compiled model, and data for it."""
    import keras

    random = np.random.default_rng(0)
    classes = random.integers(0, 3, 160)
    samples = (random.normal(size=(3, 8))[classes] * 2 + random.normal(size=(160, 8))).astype("float32")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, activation="softmax", name="head")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    names = {"model": model, "x_train": samples[:128], "y_train": classes[:128]}
    return MappingProxyType({**names, "x_test": samples[128:], "y_test": classes[128:]})


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=label)
def test_the_code_of_a_page_runs(
    page: Path, known_to_readers: MappingProxyType[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python blocks of a page run in their order, in one namespace; pages of docs/ bring all that they need."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": page.stem, **(known_to_readers if page.name == "README.md" else {})}
    for line, source in blocks(page, "python"):
        # As many empty lines in front: an error then points at the line of the page.
        exec(compile("\n" * line + source, str(page), "exec"), namespace)


def test_the_pages_hold_code() -> None:
    """The blocks are found: a page that shows code shows it as Python."""
    assert {label(page) for page in PAGES if blocks(page, "python")} >= {
        "README.md", "docs/index.md", "docs/profiler.md", "docs/export.md", "docs/plans-and-results.md", "docs/edge.md",
    }  # fmt: skip


def test_the_table_of_metrics_is_that_of_the_package() -> None:
    """The documentation explains each metric as ``METRICS`` does; ``python tests/test_docs.py`` prints the table."""
    assert metrics_table() in METRICS_PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", kp.__all__)
def test_each_public_name_is_documented(name: str) -> None:
    """Each public name stands in the documentation, and in the README's table."""
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES if page.parent.name == "docs")
    assert re.search(rf"\bkp\.{name}\b", pages)
    assert f"`kp.{name}`" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_no_page_names_what_does_not_exist() -> None:
    """Each ``kp.name`` in a page is a public name."""
    named = {name for page in TEXTS for name in re.findall(r"\bkp\.(\w+)", page.read_text(encoding="utf-8"))}
    assert named - set(kp.__all__) == set()


@pytest.mark.parametrize("page", TEXTS, ids=label)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link leads to a file, and its anchor to a heading there."""
    assert broken_links(page) == []


def test_broken_links_are_seen(tmp_path: Path) -> None:
    """A missing file and a missing heading are both found."""
    page = tmp_path / "page.md"
    page.write_text("# A `code` heading\n[a](page.md#a-code-heading) [b](gone.md) [c](#gone) [d](https://host/gone)\n")
    assert broken_links(page) == ["gone.md", "#gone"]


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_readme_has_the_steps_of_the_makefile(target: str) -> None:
    """The lines for those without make are those that make runs."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    variables = {**dict(re.findall(r"^(\w+) \??= (.*)$", makefile, re.MULTILINE)), "PYTHON": "python3"}
    recipes = dict(re.findall(r"^([\w./]+):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE))
    lines = [line.strip() for line in (recipes[f".venv/{target}/.ready"] + recipes[target]).splitlines()]
    steps = [re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], line) for line in lines if "touch" not in line]
    shell = "".join(source for _, source in blocks(ROOT / "README.md", "sh"))
    assert len(steps) >= 3
    assert "\n".join(steps) in shell


@pytest.mark.parametrize("verb", [verb.name for verb in COMMANDS])
def test_each_verb_of_the_command_line_is_documented(verb: str) -> None:
    """Each verb has a section of its own in docs/command-line.md, with a line that can be typed."""
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    section = text.partition(f"\n## {verb}\n")[2].partition("\n## ")[0]
    assert f"keras-precision {verb}" in section


def test_the_readme_lists_every_extra() -> None:
    """The table of extras has those of the package, and no other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Install\n")[2].partition("\n## ")[0]
    assert [row[0] for row in rows(section)[1:]] == [f"`{extra}`" for extra in project["optional-dependencies"]]


def test_the_readme_leads_to_every_page_and_example() -> None:
    """Each page of docs/ and each example has a link in the README."""
    links = set(re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    there = [*(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.py")]
    assert {str(path.relative_to(ROOT)) for path in there} - links == set()


if __name__ == "__main__":
    print(metrics_table())
