"""The HTML page of a report, as one file without dependencies."""

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
from keras_precision.report.findings import findings_of
from keras_precision.report.loading import ReportInputs
from keras_precision.report.overview import overview
from keras_precision.report.render import tables
from keras_precision.report.tables.machine import machine_table

__all__ = ["page"]

_TEMPLATES = Path(__file__).parent / "template"


@dataclass(frozen=True)
class _Section:
    """A section of the page, with a link in its navigation."""

    key: str
    title: str
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()


def page(inputs: ReportInputs, findings: Sequence[Finding] = (), *, title: str = "Precision report") -> str:
    """Return a page with its styles, scripts and data, and with findings in addition to those of the rules."""
    jinja = require("jinja2", extra="report")
    library = _library()
    environment = jinja.Environment(
        loader=jinja.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja.StrictUndefined,
    )  # fmt: skip
    hosts = by_host(inputs.results)
    parts = [_part(inputs, host, index, findings if index == 0 else ()) for index, host in enumerate(hosts)]
    charts = [chart.to_json() for part in parts for section in part["sections"] for chart in section.charts]
    return str(
        environment.get_template("report.html").render(
            title=title,
            parts=parts,
            problems=inputs.problems,
            charts=_as_script(charts),
            library=library if charts else "",
            style=_asset("report.css"),
            script=_asset("report.js"),
        )
    )


def _part(inputs: ReportInputs, host: Host, index: int, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the template's values for one machine."""
    comparisons = inputs.compared_on(host.results)
    single = inputs.uncompared(host.results)
    merged = findings_of(host.results, findings)
    return {
        "key": f"m{index}-",
        "host": host.name,
        "overview": overview(single, merged, comparisons),
        "findings": _grouped(merged),
        "sections": [
            _with_keys(section, index)
            for section in (*_comparison_sections(comparisons), *_sections(host.results, single))
            if section.charts or section.tables
        ],
        "notes": [(result.name, note) for result in host.results for note in result.notes],
    }


def _grouped(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Group findings by severity and code: fifty layers that overflow have one cause."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.code), []).append(finding)
    return list(groups.values())


def _without_bars(table: Table) -> Table:
    """Return a table without its untitled columns, whose text bars the charts of the page replace."""
    columns = [index for index, title in enumerate(table.header) if title]
    rows = tuple(tuple(row[index] for index in columns) for row in table.rows)
    return replace(table, header=tuple(table.header[index] for index in columns), rows=rows)


def _comparison_sections(comparisons: Sequence[Comparison]) -> Iterator[_Section]:
    charts = _existing(*(verdict_chart(comparison, number) for number, comparison in enumerate(comparisons)))
    yield _Section("compared", "Comparison", charts, tuple(comparison.table() for comparison in comparisons))


def _sections(results: Sequence[Result], single: Sequence[Result]) -> Iterator[_Section]:
    """Return the sections of one machine; ``single`` are the results whose tables no comparison shows."""
    yield _Section("tables", "Runs and files", tables=tuple(map(_without_bars, tables(single))))
    yield _Section("trade", "Cost and quality", tuple(pareto_charts(results)))
    yield _Section("time", "Step time", _existing(step_time_spread(results), step_time_line(results)))
    yield _Section("loss", "Loss", _existing(loss_chart(results)))
    yield _Section("scale", "Loss scale", _existing(loss_scale_chart(results)))
    yield _Section("memory", "Memory", _existing(memory_chart(results)))
    yield _Section("layers", "Layers", (*heat_maps(results), *layer_errors(results)))
    yield _Section("measured", "How it was measured", tables=(machine_table(results), *_source_tables(results)))


def _existing(*charts: Chart | None) -> tuple[Chart, ...]:
    return tuple(chart for chart in charts if chart is not None)


def _with_keys(section: _Section, index: int) -> _Section:
    """Return a section whose keys are unique among all machines."""
    charts = tuple(replace(chart, key=f"m{index}-chart-{chart.key}") for chart in section.charts)
    return _Section(f"m{index}-{section.key}", section.title, charts, section.tables)


def _source_tables(results: Sequence[Result]) -> Iterator[Table]:
    sources: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for metric, source in result.environment.sources.items():
            sources.setdefault((metric, source), []).append(result.name)
    if sources:
        rows = tuple(
            (metric, source, ", ".join(dict.fromkeys(names))) for (metric, source), names in sorted(sources.items())
        )
        yield Table("Sources of all metrics", ("Metric", "Source", "Results"), rows)


def _as_script(charts: Sequence[dict[str, Any]]) -> str:
    """Return JSON that cannot end its script element, whatever names it contains."""
    text = json.dumps(charts, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


@functools.cache
def _library() -> str:
    """Return Plotly's script, compressed to a third: browsers decompress it quickly."""
    require("plotly", extra="report")
    script = require("plotly.offline", extra="report").get_plotlyjs()
    return base64.b64encode(gzip.compress(script.encode(), 9, mtime=0)).decode()
