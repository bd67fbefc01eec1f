"""One recorded session in every form, against files that were looked at once."""

import re
from html import unescape

import pytest
from recorded import FORMS, GOLDEN, session

import keras_precision as kp


@pytest.mark.parametrize("form", FORMS)
def test_the_session_is_as_recorded(form: str) -> None:
    """The tables of the session are those of the file; ``python tests/golden/record.py --render`` writes it anew."""
    assert kp.render(session(), format=form) + "\n" == (GOLDEN / FORMS[form]).read_text(encoding="utf-8")


def test_every_form_has_the_same_cells() -> None:
    """HTML and Markdown show the same figures in the same order."""
    markdown, html = ((GOLDEN / FORMS[form]).read_text(encoding="utf-8") for form in ("markdown", "html"))
    lines = [line for line in markdown.splitlines() if line.startswith("| ") and not line.startswith("| :--")]
    expected = [cell.strip() for line in lines for cell in line.strip("|").split("|")]
    assert len(expected) > 40
    assert [unescape(cell) for cell in re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", html)] == expected


def test_a_notebook_shows_the_same() -> None:
    """A result in a notebook's cell is its table."""
    result = session()[0]
    assert result._repr_html_() == kp.render(result, "html")
    assert '<th scope="row">float32</th>' in result._repr_html_()
