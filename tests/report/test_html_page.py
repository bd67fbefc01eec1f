"""The report as a file: self-contained, escaped, honest about what it could not read."""

import json
import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from recorded import GOLDEN, session

import keras_precision as kp
from keras_precision.core.errors import DestinationError, InputError, MissingExtraError, PrecisionWarning
from keras_precision.report.overview import overview

HOSTILE = '</script><script>alert("x")</script><b>' + "n" * 5000


class Page(HTMLParser):
    """What stands in a page, and what it would load."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.ids += [values["id"]] if values.get("id") else []
        self.loads += [values[name] for name in ("src", "href", "action") if values.get(name)]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All text, the scripts included."""
        return "".join(self.texts)


def saved(results: object, path: Path, **options: object) -> Page:
    """Write a report and read it."""
    return Page(kp.save_report(results, path / "report.html", **options).read_text(encoding="utf-8"))


def charts(page: Page) -> list[str]:
    """Return the keys of the charts that the page draws."""
    (text,) = [text for text in page.texts if text.startswith('[{"key"')]
    return [chart["key"] for chart in json.loads(text)]


def test_an_explanation_says_what_it_comes_to() -> None:
    """The first sentences tell how many predictions changed, and the most sensitive layer; of a regression, without correctness."""
    rows = [
        ("all", "samples", 100),
        ("all", "changed_samples", 3),
        ("all", "lost_samples", 2),
        ("all", "won_samples", 1),
    ]
    sensitive = [("head", "changed_kept_alone", 0.01), ("stem", "changed_kept_alone", 0.02)]
    drop = kp.Result("drop of a.tflite", [kp.Measurement(*row) for row in rows + sensitive])
    assert overview([drop]).sentences == (
        "drop of a.tflite: 3 of 100 predictions changed; 2 were correct and are wrong now, 1 the other way round.",
        "The most sensitive layer is head.",
    )
    regression = kp.Result("drop of b.tflite", [kp.Measurement(*row) for row in rows[:2]])
    assert overview([regression]).sentences == ("drop of b.tflite: 3 of 100 predictions changed.",)


def test_the_session_has_every_part(tmp_path: Path) -> None:
    """The recorded session has every section that its rows allow, the overview first, and no other."""
    page = saved(session(), tmp_path, title="Digits & co")
    assert [key for key in page.ids if key.startswith("m0-") and "chart" not in key] == [
        f"m0-{part}"
        for part in ("overview", "findings", "tables", "trade", "time", "loss", "scale", "memory", "measured")
    ]
    assert charts(page) == [key for key in page.ids if "chart-" in key]
    assert len(charts(page)) == 8
    assert len(page.ids) == len(set(page.ids))
    assert "Digits & co" in page.text
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


def test_nothing_is_loaded(tmp_path: Path) -> None:
    """Every link leads within the page, and the page forbids itself the rest."""
    page = saved(session(), tmp_path)
    assert {load for load in page.loads if not load.startswith("#")} == {"data:,"}
    assert "default-src 'none'" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_tables_alone_carry_no_library(tmp_path: Path) -> None:
    """A report without charts is small."""
    saved(kp.Result("int8", [kp.Measurement("m", "size_bytes", 5)]), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 40_000


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    """Names of runs, layers, metrics, notes and findings may hold anything: they are shown, and nothing more."""
    rows = [kp.Measurement(HOSTILE, "activation_float16_overflow", 0.5, 1), kp.Measurement("epoch", "loss", 1.0, 0)]
    rows += [kp.Measurement("fit", "step_time_ms", 1.0), kp.Measurement("epoch", f"val_{HOSTILE}", 1.0, 0)]
    environment = kp.Environment(sources={HOSTILE: HOSTILE}, versions={HOSTILE: HOSTILE}, device=HOSTILE)
    result = kp.Result(HOSTILE, rows, environment, notes=(HOSTILE,))
    finding = kp.Finding("code", "error", HOSTILE, HOSTILE, HOSTILE)
    harmless, page = saved(session()[0], tmp_path), saved(result, tmp_path, findings=[finding], title=HOSTILE)
    assert page.tags.count("script") == harmless.tags.count("script") == 3
    assert "alert(" in page.text
    assert page.tags.count("b") == 2  # the tile, and the name before the note
    assert HOSTILE not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert kp.render(result, "html").count("<script") == 0


def test_data_cannot_leave_their_script() -> None:
    """The data of the charts hold no sign that could end their element, and are read as they were."""
    from keras_precision.report.html_page import _as_script

    data = [{"key": "</script><!-- & -->"}]
    assert not set("<>&") & set(_as_script(data))
    assert json.loads(_as_script(data)) == data


def test_findings_come_with_their_advice(tmp_path: Path) -> None:
    """Findings of the caller and of the rules are shown once, the most severe first, and lead the overview."""
    collapsed = kp.Result(
        "fp16", [kp.Measurement("fit", "loss_scale", 0.0, 9), kp.Measurement("fit", "step_time_ms", 1.0)]
    )
    finding = kp.Finding("mine", "info", "fp16", "Seen.", "do(this)")
    page = saved(collapsed, tmp_path, findings=[finding, finding])
    text = page.text
    assert 0 < text.index("loss-scale-collapsed") < text.index("mine")
    assert text.count("do(this)") == 1
    assert "Look at the findings: fp16 cannot be trusted." in text


def test_runs_are_judged_together(tmp_path: Path) -> None:
    """Rules that hold a run against the first are applied: here, lower precision was slower."""
    page = saved(session()[:3], tmp_path)
    assert page.text.count("no-speedup") == 2
    assert "'mixed_float16' takes 17.2 ms a step, 'float32' 2.32" in page.text


def test_findings_of_one_kind_stand_together(tmp_path: Path) -> None:
    """Three of a kind are shown, and the others can be unfolded; the overview counts them, and names the run."""
    findings = [kp.Finding("overflow", "error", f"run: layer_{n}", f"Seen {n}.", "fix()") for n in range(9)]
    page = saved(session()[0], tmp_path, findings=findings)
    assert page.tags.count("details") == 1
    assert page.text.index("Seen 2.") < page.text.index("and 6 more of this kind") < page.text.index("Seen 3.")
    assert "Look at the findings: run cannot be trusted." in page.text


def test_machines_are_warned_of_and_separate(tmp_path: Path) -> None:
    """Results of two machines get separate parts with their own baselines, and a warning."""
    runs = [
        kp.Result(name, [kp.Measurement("fit", "step_time_ms", time)], kp.Environment(processor=processor))
        for name, time, processor in (("a", 4.0, "one"), ("b", 2.0, "one"), ("c", 1.0, "two"))
    ]
    with pytest.warns(PrecisionWarning, match="come from 2 machines, which the report shows separately: one; two"):
        page = saved(runs, tmp_path)
    assert {"m0-overview", "m1-overview", "machines"} <= set(page.ids)
    assert [text for text in page.texts if re.fullmatch(r"\d\.\d\dx", text)] == [
        "2.00x",
        "1.00x",
        "2.00x",
    ]  # none of the only run on "two"
    drawn = kp.render(runs, "markdown")
    assert re.findall("^### (.*)$", drawn, re.MULTILINE) == ["Training on one", "Training on two"]
    assert drawn.count("Times of different machines are not comparable") == 2


def test_damaged_files_are_listed_and_the_rest_is_shown(tmp_path: Path) -> None:
    """Files that could not be read are listed at the top, with warnings."""
    results = tmp_path / "results"
    results.mkdir()
    session()[0].save(results / "good.json")
    (results / "bad.json").write_bytes((GOLDEN / "session" / "tflite-int8.json").read_bytes()[:500])
    with pytest.warns(PrecisionWarning, match=r"Left out of the report: .*bad\.json"):
        page = saved(results, tmp_path)
    assert "problems" in page.ids
    assert "bad.json" in page.text
    assert "m0-tables" in page.ids


@pytest.mark.parametrize(
    ("results", "path", "error"),
    [([], "report.html", InputError), (None, "report.html", InputError), (session(), "report.pdf", DestinationError)],
)
def test_what_cannot_be_reported_leaves_nothing(
    results: object, path: str, error: type[Exception], tmp_path: Path
) -> None:
    """No results, and a path that is no page, are refused, and no file is left."""
    with pytest.raises(error):
        kp.save_report(results, tmp_path / path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["jinja2", "plotly", "plotly.offline"])
def test_a_missing_package_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without plotly or Jinja, the message has the line that installs them, and nothing is written."""
    from keras_precision.report import html_page as page

    page._library.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r'pip install "keras-precision\[report\]"'):
        kp.save_report(session(), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_many_steps_are_thinned(tmp_path: Path) -> None:
    """20,000 steps make a page little larger than 2,000 do."""
    sizes = []
    for steps in (2_000, 20_000):
        rows = [kp.Measurement("step", "step_time_ms", 1 + 0.1 * math_noise(step), step) for step in range(steps)]
        sizes.append(kp.save_report(kp.Result("run", rows), tmp_path / "report.html").stat().st_size)
    assert sizes[1] - sizes[0] < 60_000


def math_noise(step: int) -> float:
    """Return a number between 0 and 1 that looks random."""
    return (step * 2654435761 % 2**32) / 2**32


def test_the_overview_claims_no_more_than_it_knows() -> None:
    """Single runs are described, with the figures of both sides, and never recommended."""
    said = overview(session())
    assert said.sentences[0] == "No run had shorter steps than float32 (2.32 ms)."
    assert said.sentences[1] == "These are single runs: kp.compare_training shows which differences are significant."
    assert said.sentences[2].startswith("tflite:int8 is the smallest file, 72 % of tflite:float32, 0.28x as fast, ")
    assert [tile.figure for tile in said.tiles][:1] == ["0.82x"]


ODD = [
    kp.Result("empty"),
    kp.Result("texts", [kp.Measurement("fit", metric, "?", step) for metric in kp.METRICS for step in (None, 1)]),
    kp.Result("nan", [kp.Measurement("fit", metric, math.nan, step) for metric in kp.METRICS for step in (None, 1)]),
    kp.Result(
        "infinite", [kp.Measurement("step", metric, -math.inf, step) for metric in kp.METRICS for step in (3, 2)]
    ),
    kp.Result("none", [kp.Measurement("epoch", metric, None, step) for metric in kp.METRICS for step in (None, 1)]),
    kp.Result("many", [kp.Measurement(f"s{n}", metric, n, None) for metric in kp.METRICS for n in range(3)]),
    kp.Result("steps", [kp.Measurement(f"s{n}", metric, n, n) for metric in kp.METRICS for n in range(3)]),
]


HERE = [replace(odd, environment=session()[0].environment) for odd in ODD]


@pytest.mark.parametrize(
    "results", [*[[odd] for odd in ODD], ODD, [*session(), *HERE]], ids=lambda results: results[0].name
)
def test_any_result_can_be_reported(results: list[kp.Result], tmp_path: Path) -> None:
    """Whatever a sound file may hold, in whatever mixture, makes a page and a table."""
    page = saved(results, tmp_path)
    assert all(result.name in page.text for result in results if result.measurements)
    assert kp.render(results, "markdown")
