"""The report in a real browser: it draws, sorts, answers to the pointer, and asks nobody for anything."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, missing
from recorded import session

import keras_precision as kp

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:selenium"),
]
HOSTILE = "</script><img src=https://example.org/x onerror=alert(1)><b>n"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the session, with a finding, and a layer whose name is hostile."""
    rows = [kp.Measurement(name, "gradient_float16_underflow", 0.5, 1) for name in ("stem", HOSTILE)]
    watched = kp.Result(HOSTILE, rows, session()[0].environment)
    finding = kp.Finding("code", "warning", "float32", "Something was seen.", "model.compile(...)")
    return kp.save_report([*session(), watched], tmp_path_factory.mktemp("report") / "report.html", findings=[finding])


def to(browser: Browser, key: str) -> None:
    """Scroll to a chart and wait until it is drawn."""
    browser.run("document.getElementById(arguments[0]).scrollIntoView({behavior: 'instant', block: 'center'})", key)
    browser.wait("return document.querySelector(`#${arguments[0]} .main-svg`) !== null", key)


def test_every_chart_is_drawn_and_nothing_leaves_the_page(browser: Browser, report: Path) -> None:
    """All charts have marks; the console is silent; the file itself is the only request."""
    browser.look()
    browser.open(report)
    keys = browser.run("return [...document.querySelectorAll('.plot')].map((place) => place.id)")
    assert len(keys) == 9
    for key in keys:
        to(browser, key)
        drawn = "#{} .scatterlayer path, #{} .barlayer path, #{} .heatmaplayer image".replace("{}", key)
        assert browser.wait("return document.querySelectorAll(arguments[0]).length", drawn)
        box = "const {height} = document.querySelector(`#${arguments[0]} .main-svg`).getBoundingClientRect(); return height"
        assert browser.run(box, key) == browser.run("return document.getElementById(arguments[0]).clientHeight", key)
    assert browser.messages() == []
    asked = [url for url in browser.requests() if not url.startswith(("data:", "blob:"))]
    assert asked == [report.resolve().as_uri()]
    assert browser.run("return document.querySelectorAll('main img').length") == 0


def test_what_the_page_would_load_is_refused(browser: Browser, report: Path) -> None:
    """The page's own policy stops even a script of ours from asking somebody."""
    browser.open(report)
    blocked = browser.driver.execute_async_script(
        "const done = arguments[0]; fetch('https://example.org/').then(() => done('loaded'), () => done('refused'))"
    )
    assert blocked == "refused"
    assert "Content Security Policy" in " ".join(browser.messages())
    assert browser.run("return document.querySelector('meta[http-equiv]') !== null")


def test_hovering_shows_the_plan(browser: Browser, report: Path) -> None:
    """The pointer on a point of the Pareto chart shows the figures and the plan."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    browser.look()
    browser.open(report)
    key = "m0-chart-pareto-size-bytes"
    to(browser, key)
    point = browser.driver.find_element(By.CSS_SELECTOR, f"#{key} .scatterlayer .point")
    ActionChains(browser.driver).move_to_element(point).perform()
    text = browser.wait("return document.querySelector(`#${arguments[0]} .hoverlayer`).textContent", key)
    assert "size: " in text
    assert "default: " in text


def test_tables_sort(browser: Browser, report: Path) -> None:
    """A click sorts by the figures, a second one turns the order round; what is unknown stays at the end."""
    browser.open(report)
    column = "return [...document.querySelectorAll('#m0-tables table')[0].tBodies[0].rows].map((row) => row.cells[5].textContent)"
    click = "document.querySelectorAll('#m0-tables table')[0].tHead.rows[0].cells[5].querySelector('button').click()"
    runs = browser.run(column)
    assert runs[2] == "-"
    browser.run("document.querySelectorAll('#m0-tables table')[0].tBodies[0].rows[0].cells[5].textContent = '1,000 MB'")
    browser.run(click)
    assert browser.run(column) == ["0.307 MB", "1,000 MB", "-"]
    browser.run(click)
    assert browser.run(column) == ["1,000 MB", "0.307 MB", "-"]


@pytest.mark.parametrize("width", [390, 1200])
def test_no_part_is_wider_than_the_window(browser: Browser, report: Path, width: int) -> None:
    """On a phone as on a desk, nobody has to scroll sideways."""
    browser.look(width=width)
    browser.open(report)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    browser.look()


def test_light_and_dark(browser: Browser, report: Path) -> None:
    """The system's choice is followed, the button changes it, and the charts go along."""
    ink = "return getComputedStyle(document.body).color"
    tick = "return getComputedStyle(document.querySelector('#m0-chart-pareto-size-bytes .xtick text')).fill"
    seen = []
    for dark in (False, True):
        browser.look(dark=dark)
        browser.open(report)
        to(browser, "m0-chart-pareto-size-bytes")
        seen.append(browser.run(ink))
        assert browser.run(tick) == seen[-1]
    assert seen[0] != seen[1]
    browser.run("document.getElementById('theme').click()")
    browser.wait(f"{ink} === arguments[0]", seen[0])
    browser.wait(f"{tick} === arguments[0]", seen[0])
    browser.look()


def test_advice_is_copied(browser: Browser, report: Path) -> None:
    """The button beside the code copies it, or selects it where the browser forbids that."""
    browser.open(report)
    browser.run("document.querySelector('.copy').click()")
    assert browser.wait("return document.querySelector('.copy').textContent !== 'Copy'")
