"""page: results as one HTML file that needs nothing else."""

import base64
import functools
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keras_precision.comparison.comparison import Comparison
from keras_precision.core.result import Result
from keras_precision.core.system.optional import require
from keras_precision.core.table import Table
from keras_precision.findings.finding import Finding
from keras_precision.report.by_machine import Host, by_host
from keras_precision.report.charts.chart import Chart
from keras_precision.report.charts.heat_map import heat_maps
from keras_precision.report.charts.layer_error import layer_errors
from keras_precision.report.charts.loss import loss_chart
from keras_precision.report.charts.loss_scale import loss_scale_chart
from keras_precision.report.charts.memory import memory_chart
from keras_precision.report.charts.pareto import pareto_charts
from keras_precision.report.charts.step_time import step_time_line, step_time_spread
from keras_precision.report.charts.verdicts import verdict_chart
from keras_precision.report.findings import judged
from keras_precision.report.loading import Gathered
from keras_precision.report.overview import overview
from keras_precision.report.render import tables
from keras_precision.report.tables.machine import machine_table

__all__ = ["page"]

_TEMPLATES = Path(__file__).parent / "template"


@dataclass(frozen=True)
class _Section:
    """A part of the page, with a place in its navigation."""

    key: str
    title: str
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()


def page(gathered: Gathered, findings: Sequence[Finding] = (), *, title: str = "Precision report") -> str:
    """Return results as a page.

    Args:
        gathered: The results.
        findings: Findings to show beside those that rules make from the results.
        title: Its heading.

    Returns:
        HTML with styles, scripts and data inside; it asks no server for anything.

    Raises:
        MissingExtraError: plotly or Jinja is not installed.
    """
    jinja = require("jinja2", extra="report")
    library = _library()
    environment = jinja.Environment(
        loader=jinja.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja.StrictUndefined,
    )  # fmt: skip
    hosts = by_host(gathered.results)
    parts = [_part(gathered, host, index, findings if index == 0 else ()) for index, host in enumerate(hosts)]
    charts = [chart.to_json() for part in parts for section in part["sections"] for chart in section.charts]
    return str(
        environment.get_template("report.html").render(
            title=title,
            parts=parts,
            problems=gathered.problems,
            charts=_as_script(charts),
            library=library if charts else "",
            style=_asset("report.css"),
            script=_asset("report.js"),
        )
    )


def _part(gathered: Gathered, host: Host, index: int, findings: Sequence[Finding]) -> dict[str, Any]:
    """What the template needs to know of one machine."""
    comparisons = gathered.compared_on(host.results)
    apart = gathered.apart(host.results)
    every = judged(host.results, findings)
    return {
        "key": f"m{index}-",
        "host": host.name,
        "overview": overview(apart, every, comparisons),
        "findings": _grouped(every),
        "sections": [
            _placed(section, index)
            for section in (*_compared(comparisons), *_sections(host.results, apart))
            if section.charts or section.tables
        ],
        "notes": [(result.name, note) for result in host.results for note in result.notes],
    }


def _grouped(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Findings of one kind together: fifty layers that overflow are one story."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.code), []).append(finding)
    return list(groups.values())


def _without_bars(table: Table) -> Table:
    """A table without the columns that draw bars of letters: the page has charts."""
    kept = [index for index, title in enumerate(table.header) if title]
    rows = tuple(tuple(row[index] for index in kept) for row in table.rows)
    return replace(table, header=tuple(table.header[index] for index in kept), rows=rows)


def _compared(comparisons: Sequence[Comparison]) -> Iterator[_Section]:
    charts = _some(*(verdict_chart(comparison, number) for number, comparison in enumerate(comparisons)))
    yield _Section("compared", "Comparison", charts, tuple(comparison.table() for comparison in comparisons))


def _sections(results: Sequence[Result], apart: Sequence[Result]) -> Iterator[_Section]:
    """The parts of a page; those without anything to show are left out, and so are tables of what was compared."""
    yield _Section("tables", "Runs and files", tables=tuple(map(_without_bars, tables(apart))))
    yield _Section("trade", "Cost and worth", tuple(pareto_charts(results)))
    yield _Section("time", "Step time", _some(step_time_spread(results), step_time_line(results)))
    yield _Section("loss", "Loss", _some(loss_chart(results)))
    yield _Section("scale", "Loss scale", _some(loss_scale_chart(results)))
    yield _Section("memory", "Memory", _some(memory_chart(results)))
    yield _Section("layers", "Layers", (*heat_maps(results), *layer_errors(results)))
    yield _Section("measured", "How it was measured", tables=(machine_table(results), *_source_tables(results)))


def _some(*charts: Chart | None) -> tuple[Chart, ...]:
    return tuple(chart for chart in charts if chart is not None)


def _placed(section: _Section, index: int) -> _Section:
    """A section whose charts have keys of their own among all machines."""
    charts = tuple(Chart(f"m{index}-chart-{chart.key}", *_fields(chart)) for chart in section.charts)
    return _Section(f"m{index}-{section.key}", section.title, charts, section.tables)


def _fields(chart: Chart) -> tuple[Any, ...]:
    return chart.title, chart.about, chart.traces, chart.layout, chart.height, chart.notes, chart.width


def _source_tables(results: Sequence[Result]) -> Iterator[Table]:
    sources: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for metric, how in result.environment.sources.items():
            sources.setdefault((metric, how), []).append(result.name)
    if sources:
        rows = tuple((metric, how, ", ".join(dict.fromkeys(names))) for (metric, how), names in sorted(sources.items()))
        yield Table("How each figure was got", ("Figure", "How", "Of"), rows)


def _as_script(charts: Sequence[dict[str, Any]]) -> str:
    """JSON that stays inside its script element, whatever names it holds."""
    text = json.dumps(charts, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


@functools.cache
def _library() -> str:
    """Plotly's script, packed: it is two thirds smaller, and browsers unpack it in a moment."""
    require("plotly", extra="report")
    script = require("plotly.offline", extra="report").get_plotlyjs()
    return base64.b64encode(gzip.compress(script.encode(), 9, mtime=0)).decode()
