"""Drift for people: an Evidently page of one batch, and a small picture of the last windows.

Neither decides anything; the verdict rests on `measure_columns` alone.

Most of an Evidently page is Evidently's own program, the same in every page. Here the pages refer
to one copy of it, `shared_script`, and hold only what differs. What comes from the data (names of
columns, levels) is never part of a program: it lies in a block of JSON that a browser does not run,
and the page forbids every script but its own and the shared one.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import math
import re
import warnings
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.retraining import shelf
from include.retraining.monitor.verdict import unjudged_share
from include.retraining.records import BatchRef, DriftReport, FeatureDrift, Verdict
from include.retraining.telling.escapes import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

PAGE_COLUMNS = 10
SAMPLED_ROWS = 20_000  # a side; Evidently's cost grows with rows, what a reader sees does not
PICTURED_COLUMNS = 8
LEVELS = 20  # of a categorical column; the others become one
_LABEL_CHARACTERS = 60
_TEXT_CHARACTERS = 3000
_PANEL_CHARACTERS = 55  # that fit side by side below a panel
_NAMED = 6  # in a line of text
_DIGITS = 6  # of a number in a chart
_SEED = 0
_INK, _MUTED, _GRID = "#1f2933", "#616e7c", "#e4e7eb"
_CALM, _ALARM = "#0072b2", "#d55e00"  # told apart by colour-blind people too
_LEGEND = ("circle: not drifted", "diamond: drifted", "hollow: not judged", "dashed: threshold")
_STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { border: 1px solid #ccc; padding: .3em .7em; text-align: left; overflow-wrap: anywhere; }
#missing { color: #b00020; }
#verdict { border-left: 4px solid #d55e00; background: #faf6f2; padding: .1em 1em; }
"""
# The layout that Evidently repeats in every chart is kept once; a chart has its place in the list.
_DRAW = """
const data = document.getElementById("data").textContent;
const { templates } = JSON.parse(data);
const { dashboard } = JSON.parse(
  data, (key, value) => key === "template" ? templates[value] : value
);
if (window.drawDashboard) {
  window.drawDashboard(dashboard, new Map(), "charts");
} else {
  document.getElementById("missing").hidden = false;
}
"""


class _Charts(NamedTuple):
    """What Evidently made of the columns it could take, and why it could not take the others."""

    widgets: list[Any]
    shown: list[str]
    left_out: dict[str, str]
    grouped: dict[str, int]


def page_columns(report: DriftReport) -> tuple[str, ...]:
    """Give the names of the features that a page shows.

    Returns
    -------
    tuple of str
        Ten at most: those that drifted first, then those that drifted as expected, each group by
        how far they are beyond their threshold. The champion's predictions are no feature: a page
        does not show them.
    """
    return tuple(feature.name for feature in _ranked(report)[:PAGE_COLUMNS])


def _ranked(report: DriftReport) -> list[FeatureDrift]:
    def rank(feature: FeatureDrift) -> tuple[float, ...]:
        unexpected = feature.drifted and not feature.expected
        return -unexpected, -feature.drifted, -feature.excess, -(feature.distance or 0.0)

    return sorted(report.features, key=rank)


def shared_script() -> tuple[str, bytes]:
    """Give the program that all pages of this version of Evidently share.

    Returns
    -------
    name : str
        Of the file: Evidently's version and a digest of the content.
    content : bytes
        JavaScript, some 3.7 MB, with the font it draws with.
    """
    from importlib.metadata import version
    from importlib.resources import files

    static = files("evidently") / "nbextension" / "static"
    font = base64.b64encode((static / "material-ui-icons.woff2").read_bytes()).decode()
    face = (
        "@font-face { font-family: 'Material Icons'; "
        f"src: url(data:font/woff2;base64,{font}) format('woff2'); }} "
        ".material-icons { font-family: 'Material Icons'; line-height: 1; display: inline-block; }"
    )
    head = (
        "var global = globalThis;\n"
        "document.head.appendChild(document.createElement('style')).textContent = "
        f"{json.dumps(face)};\n"
    )
    content = head.encode() + (static / "index.js").read_bytes()
    return shelf.shared_script_name("evidently", version("evidently"), content), content


def evidently_page(
    report: DriftReport,
    verdict: Verdict,
    reference: pa.Table,
    current: pa.Table,
    *,
    script_url: str,
) -> bytes | None:
    """Render Evidently's view of the most drifted columns of one batch as an HTML page.

    Parameters
    ----------
    report : DriftReport
        What was measured of the batch; it says which columns are shown, and what came of each.
    verdict : Verdict
        What was decided about it, which is said above everything.
    reference, current : pyarrow.Table
        The rows the champion learned from, and those of the batch, with the columns that
        `page_columns` names. Of more than 20,000 rows a side a sample is shown, with a fixed seed.
    script_url : str
        Where the page finds `shared_script`; may be relative.

    Returns
    -------
    bytes or None
        The page, UTF-8; None where Evidently can take no column. One that it cannot take is named
        on the page with the reason.
    """
    sides = _sample(reference), _sample(current)
    charts = _charts(_ranked(report)[:PAGE_COLUMNS], *sides)
    if not charts.shown:
        return None
    title = f"{report.batch.model} {report.batch.partition}: drift"
    rows = (reference.num_rows, sides[0].num_rows), (current.num_rows, sides[1].num_rows)
    data = _as_json({"name": "Report", "widgets": charts.widgets})
    draw = base64.b64encode(hashlib.sha256(_DRAW.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{draw}' 'self' file:; style-src 'unsafe-inline'; "
        "font-src data:; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    body = [
        f"<h1>{_text(title)}</h1>",
        _decided(verdict),
        *(f"<p>{_text(line)}</p>" for line in _summary(report, charts, rows)),
        _table(report, charts.shown),
        f'<p id="missing" hidden>Not found: {_text(script_url)}, which draws the charts.</p>',
        '<div id="charts"></div>',
        f'<script type="application/json" id="data">{data}</script>',
        f'<script src="{escape(script_url, quote=True)}"></script>',
        f"<script>{_DRAW}</script>",
    ]
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy, quote=True)}">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>"
    ).encode()


# --- what is said on the page ---------------------------------------------------------------------


def _decided(verdict: Verdict) -> str:
    """Say what was decided about the batch, and by whom."""
    champion = verdict.champion_version
    against = "without a champion" if champion is None else f"against version {champion}"
    reasons = "".join(f"<li>{_text(reason)}</li>" for reason in verdict.reasons)
    return (
        f'<div id="verdict"><p><b>Verdict of the monitor, {against}: {verdict.outcome}.</b> '
        "It decides, by the measurements in the table below; Evidently's charts and scores decide "
        f"nothing.</p><ul>{reasons}</ul></div>"
    )


def _summary(
    report: DriftReport, charts: _Charts, rows: Sequence[tuple[int, int]]
) -> Sequence[str]:
    total, drifted = len(report.features), sum(f.drifted for f in report.features)
    told = [
        f"{side}: {shown:,} of {there:,} rows" + (f" (a sample, seed {_SEED})" * (shown < there))
        for side, (there, shown) in zip(("Reference", "Current, the batch"), rows, strict=True)
    ]
    lines = [
        f"Shown: {len(charts.shown)} of {total:,} columns, the worst first; {drifted:,} drifted.",
        f"{'; '.join(told)}. The reference is what the champion learned from.",
    ]
    if report.unjudged:
        lines.append(_not_judged(report))
    if charts.grouped:
        rare = (f"{name}: {count:,}" for name, count in charts.grouped.items())
        lines.append(f"Rare levels drawn as one: {'; '.join(rare)}.")
    if charts.left_out:
        why = (f"{name}: {reason}" for name, reason in charts.left_out.items())
        lines.append(f"Left out: {'; '.join(why)}.")
    return lines


def _table(report: DriftReport, shown: Sequence[str]) -> str:
    found = {feature.name: feature for feature in report.features}
    lines = ["<tr><th>column<th>distance<th>threshold<th>furthest<th>verdict</tr>"]
    for name in shown:
        feature = found[name]
        furthest = f"{feature.furthest.name}, {feature.excess:.2g}x its threshold"
        cells = (
            _label(name), _number(feature.distance), _number(feature.threshold),
            furthest if feature.excess else "-", _verdict(feature),
        )  # fmt: skip
        lines.append("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _verdict(feature: FeatureDrift) -> str:
    if not feature.is_judged:
        return "not judged"
    if not feature.drifted:
        return "not drifted"
    return "drifted, as expected" if feature.expected else "drifted"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _text(value: str) -> str:
    return escape(one_line(value, _TEXT_CHARACTERS), quote=True)


def _label(value: object) -> str:
    """Make a name or a level a short piece of text that no chart reads as mark-up."""
    text = str(value).translate({ord("<"): "\u2039", ord(">"): "\u203a"})
    return _shortened(re.sub(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+", " ", text), _LABEL_CHARACTERS)


def _shortened(text: str, characters: int) -> str:
    """Leave out the middle of a long text: names differ at either end."""
    if len(text) <= characters:
        return text
    end = characters // 3
    return f"{text[: characters - end - 1]}…{text[-end:]}"


def _distinct(label: str, taken: set[str]) -> str:
    """Make a label differ from others; two long names may have become the same."""
    tries = itertools.chain([label], (f"{label} ({number})" for number in itertools.count(2)))
    free = next(one for one in tries if one not in taken)
    taken.add(free)
    return free


# --- what Evidently draws -------------------------------------------------------------------------


def _sample(table: pa.Table) -> pa.Table:
    """Give at most `SAMPLED_ROWS` rows of a table, in their order."""
    if table.num_rows <= SAMPLED_ROWS:
        return table
    chosen = np.random.default_rng(_SEED).choice(
        table.num_rows, SAMPLED_ROWS, replace=False, shuffle=False
    )
    return table.take(pa.array(np.sort(chosen)))


def _charts(features: Sequence[FeatureDrift], reference: pa.Table, current: pa.Table) -> _Charts:
    charts = _Charts([], [], {}, {})
    labels: set[str] = set()
    for feature in features:
        label = _distinct(_label(feature.name), labels)
        try:
            _draw_column(charts, feature, label, reference, current)
        except _CannotDrawError as error:
            charts.left_out[label] = str(error)
    return charts


class _CannotDrawError(Exception):
    """Why Evidently cannot take a column."""


def _draw_column(
    charts: _Charts, feature: FeatureDrift, label: str, reference: pa.Table, current: pa.Table
) -> None:
    before = _values(feature, reference, "the reference")
    now = _values(feature, current, "the batch")
    if feature.kind == "numeric":
        sides, others = (before.to_numpy(), now.to_numpy()), 0
    else:
        sides, others = _levels(before, now)
    if all((side == sides[0][0]).all() for side in sides):
        raise _CannotDrawError("only one value")
    widgets = _evidently_widgets(feature.kind, label, *sides)
    for widget in widgets:
        _retell(widget, feature, label)
    charts.widgets.extend(widgets)
    charts.shown.append(feature.name)
    if others:
        charts.grouped[label] = others


def _values(feature: FeatureDrift, table: pa.Table, side: str) -> pa.ChunkedArray:
    """Give the values of one side, missing ones left out: float64, or text."""
    if table.schema.names.count(feature.name) != 1:
        raise _CannotDrawError(f"not in {side}")
    column = table.column(feature.name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count == len(column):
        raise _CannotDrawError(f"no value in {side}")
    kind, numeric = column.type, feature.kind == "numeric"
    allowed = (pa.types.is_integer, pa.types.is_boolean) + (
        (pa.types.is_floating, pa.types.is_decimal)
        if numeric
        else (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    )
    if not any(is_of(kind) for is_of in allowed):
        raise _CannotDrawError(f"of type {kind} in {side}")
    column = column.cast(pa.float64() if numeric else pa.large_string(), safe=False).drop_null()
    if numeric:
        column = column.filter(pc.invert(pc.is_nan(column)))
        if pc.any(pc.is_inf(column)).as_py():
            raise _CannotDrawError(f"infinite values in {side}")
    if len(column) < 2:
        raise _CannotDrawError(f"{'a single' if len(column) else 'no'} value in {side}")
    return column


def _levels(
    reference: pa.ChunkedArray, current: pa.ChunkedArray
) -> tuple[tuple[NDArray[Any], NDArray[Any]], int]:
    """Give the label of each row's level, and how many rare levels share one label."""
    both = pa.chunked_array([*reference.chunks, *current.chunks], type=reference.type)
    encoded = both.combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy()
    sides = codes[: len(reference)], codes[len(reference) :]
    size = len(encoded.dictionary)
    share = np.max([np.bincount(side, minlength=size) / len(side) for side in sides], axis=0)
    others = max(0, size - LEVELS)
    taken = {f"{others:,} other levels"}
    labels = np.full(size, f"{others:,} other levels", dtype=object)
    for code in np.argsort(-share, kind="stable")[:LEVELS]:
        labels[code] = _distinct(_label(encoded.dictionary[int(code)].as_py()), taken)
    return (labels[sides[0]], labels[sides[1]]), others


def _evidently_widgets(
    kind: str, label: str, reference: NDArray[Any], current: NDArray[Any]
) -> list[Any]:
    """Give what Evidently would draw of one column, as it would write it into its page."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # deprecated numpy names, divisions by zero on constants
        import pandas as pd
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift

        columns = [label]
        definition = (
            DataDefinition(numerical_columns=columns, categorical_columns=[])
            if kind == "numeric"
            else DataDefinition(numerical_columns=[], categorical_columns=columns)
        )
        sides = [
            Dataset.from_pandas(pd.DataFrame({label: side}), data_definition=definition)
            for side in (current, reference)
        ]
        try:
            page = Report([ValueDrift(column=label)]).run(*sides).get_html_str(as_iframe=False)
        except Exception as error:  # whatever its libraries raise
            raise _CannotDrawError(f"Evidently fails on it ({type(error).__name__})") from error
    data = re.search(r"^\s*var metric_\w+ = (\{.*\});$", page, re.MULTILINE)
    if data is None:
        raise _CannotDrawError("this version of Evidently writes its page in another way")
    found: list[Any] = json.loads(data[1])["widgets"]
    return found


def _retell(widget: dict[str, Any], feature: FeatureDrift, label: str) -> None:
    """Say our verdict above Evidently's score, show distributions first, keep levels text."""
    for inner in widget.get("widgets") or ():
        _retell(inner, feature, label)
    params = widget.get("params") or {}
    for counter in params.get("counters") or ():
        counter["value"] = f"{label}: {_verdict(feature)}"
        counter["label"] = f"By Evidently's own rule: {counter['label']}"
    tabs = widget.get("tabs") or []
    tabs.reverse()
    for tab in tabs:
        _retell(tab["widget"], feature, label)
    if feature.kind == "categorical":
        for chart in params.get("data") or ():
            if chart.get("type") == "bar":
                params["layout"].setdefault("xaxis", {})["type"] = "category"


def _as_json(dashboard: dict[str, Any]) -> str:
    """Write charts as JSON for a page: short, the same for the same charts, without mark-up."""
    templates: list[Any] = []
    ids = itertools.count()

    def tidy(value: Any, key: str = "") -> Any:
        match value:
            case float():
                return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
            case list():
                return [tidy(one) for one in value]
            case dict() if key == "template":
                if value not in templates:
                    templates.append(value)
                return templates.index(value)
            case dict():
                return {name: tidy(one, name) for name, one in value.items()}
            case str() if key == "id":
                return str(next(ids))
        return value

    charts = tidy(dashboard)
    text = json.dumps({"dashboard": charts, "templates": templates}, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# --- the picture ----------------------------------------------------------------------------------


def picture(reports: Sequence[DriftReport], refused: Sequence[BatchRef] = ()) -> bytes:
    """Draw how far the most drifted columns were from the reference over the last windows.

    Beside them what was realised, where the reports know it; in all panels, where the champion
    became another one, and which batches were refused.

    Parameters
    ----------
    reports : sequence of DriftReport
        Oldest first. Eight columns at most are drawn: those that drifted in the newest first, then
        those furthest beyond their threshold in any.
    refused : sequence of BatchRef
        Batches that were refused, of which there may be no report.

    Returns
    -------
    bytes
        A PNG of at most 150 kB.

    Raises
    ------
    ValueError
        There is no report.
    """
    if not reports:
        raise ValueError("picture: needs at least one drift report, got none")
    # Figure instead of pyplot: no global state, so it is safe in a long-lived worker.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    names, last = _pictured(reports), reports[-1]
    windows = _Windows.of(reports, refused)
    is_realised = any(report.performance for report in reports)
    count = len(names) + is_realised
    rows = max(1, -(-count // 2))
    height = 1.85 + 2.2 * rows
    figure = Figure(figsize=(10, height), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    found = [
        {feature.name: feature for feature in report.columns} if report else {}
        for report in windows.reports
    ]
    version = f"version {last.champion_version}" if last.champion_version else "no champion"
    title = one_line(f"{last.batch.model}: drift of {last.batch.partition} against {version}")
    panels = figure.subplots(rows, 2, squeeze=False).ravel()
    figure.subplots_adjust(
        left=0.06, right=0.94, top=1 - 1.18 / height, bottom=0.9 / height, hspace=0.72, wspace=0.2
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in letters the font has not
        if is_realised:
            _draw_realised(panels[0], windows)
        for panel, name in zip(panels[is_realised:], names, strict=False):
            _draw(panel, name, [of.get(name) for of in found])
        for panel in panels[:count]:
            _mark(panel, windows)
            panel.set_xticks(
                *_ticks([_label(name) for name in windows.partitions]), parse_math=False
            )
        for panel in panels[count:]:
            panel.set_visible(False)
        for inches, size, color, text in (
            (height - 0.18, 13, _INK, title),
            (height - 0.48, 9, _MUTED, _counted(last, len(names))),
            (0.54, 9, _MUTED, _legend(windows)),
            (0.3, 9, _MUTED, _not_judged(last)),
        ):
            line = figure.text(
                0.06, inches / height, text, fontsize=size, color=color, va="top",
                fontweight="bold" if size > 9 else "normal", parse_math=False,
            )  # fmt: skip
            _fit(line, 0.92 * figure.bbox.width)
        canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    target = io.BytesIO()
    drawn.quantize(128).save(target, format="png", optimize=True)  # a third of the bytes
    return target.getvalue()


class _Windows(NamedTuple):
    """What is known of each window of a picture, oldest first."""

    partitions: list[str]
    reports: list[DriftReport | None]
    refused: list[int]
    changes: dict[int, str]

    @classmethod
    def of(cls, reports: Sequence[DriftReport], refused: Sequence[BatchRef]) -> _Windows:
        """Put reports and refused batches in the order of time."""
        by_name = {report.batch.partition: report for report in reports}
        starts = {one.partition: one.start for one in refused} | {
            name: report.batch.start for name, report in by_name.items()
        }
        partitions = sorted(starts, key=lambda name: starts[name])
        kept = [by_name.get(name) for name in partitions]
        gone = {one.partition for one in refused}
        changes: dict[int, str] = {}
        before: DriftReport | None = None
        for position, report in enumerate(kept):
            if report is None:
                continue
            if before and before.champion_version != report.champion_version:
                number = report.champion_version
                changes[position] = "no champion" if number is None else f"v{number}"
            before = report
        return cls(
            partitions, kept, [at for at, name in enumerate(partitions) if name in gone], changes
        )


def _legend(windows: _Windows) -> str:
    told = (*_LEGEND, *["dotted: another champion"] * bool(windows.changes))
    return "    ".join((*told, *["cross: batch refused"] * bool(windows.refused)))


def _mark(panel: Axes, windows: _Windows) -> None:
    """Show in a panel where the champion became another one, and which batches were refused."""
    across = panel.get_xaxis_transform()  # x of the windows, y of the panel
    for position, version in windows.changes.items():
        panel.axvline(position - 0.5, color=_MUTED, linewidth=1, linestyle=":", zorder=1)
        panel.text(
            position - 0.45, 0.98, version, transform=across, fontsize=8, color=_MUTED, va="top",
            zorder=6, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
    for position in windows.refused:
        panel.plot(
            position, 0.05, "x", transform=across, color=_ALARM, markersize=7, markeredgewidth=2,
            zorder=5,
        )  # fmt: skip


def _draw_realised(panel: Axes, windows: _Windows) -> None:
    """Draw the realised metric with its interval, and what the champion promised."""
    realised = [report.performance if report else None for report in windows.reports]
    gap = float("nan")
    panel.errorbar(
        range(len(realised)), [one.value if one else gap for one in realised],
        yerr=[
            [max(one.value - one.low, 0) if one else gap for one in realised],
            [max(one.high - one.value, 0) if one else gap for one in realised],
        ],
        color=_CALM, linewidth=1.4, elinewidth=1, marker="o", markersize=6, zorder=3,
    )  # fmt: skip
    promises = [r.promise.value if r and r.promise else gap for r in windows.reports]
    edges = [position + side for position in range(len(promises)) for side in (-0.5, 0.5)]
    steps = [promise for promise in promises for _ in range(2)]
    panel.plot(edges, steps, color=_INK, linewidth=1.1, linestyle=(0, (4, 3)), zorder=2)
    report = next(one for one in reversed(windows.reports) if one and one.performance)
    newest = report.performance
    assert newest is not None
    note = f"{newest.value:.3f} ({newest.low:.3f} to {newest.high:.3f})"
    if report.promise:
        note += f", promised {report.promise.value:.3f}"
    _dress(panel, f"realised {newest.metric}", note, len(windows.partitions))
    panel.margins(y=0.18)


def _fit(text: Text, pixels: float) -> None:
    """Leave out the middle of a text that is too wide."""
    whole = text.get_text()
    characters = len(whole)
    while text.get_window_extent().width > pixels and characters > 8:
        characters -= 2
        text.set_text(_shortened(whole, characters))


def _pictured(reports: Sequence[DriftReport]) -> list[str]:
    rank: dict[str, tuple[bool, float]] = {}
    for report in reports:
        for feature in report.columns:
            if feature.distance is not None:
                before = rank.get(feature.name, (False, 0.0))
                drifted = feature.drifted and not feature.expected and report is reports[-1]
                rank[feature.name] = max(before[0], drifted), max(before[1], feature.excess)
    ranked = sorted(rank, key=lambda name: rank[name], reverse=True)
    return ranked[:PICTURED_COLUMNS]


def _counted(report: DriftReport, drawn: int) -> str:
    columns = report.columns
    drifted = sum(f.drifted for f in columns)
    expected = sum(f.drifted and f.expected for f in columns)
    told = f"{drifted:,} of {len(columns):,} columns drifted"
    told += f", {expected:,} of them as expected" if expected else ""
    if not drawn:
        return f"{told}; none could be measured"
    return told if drawn >= len(columns) else f"{told}; shown: the {drawn:,} most drifted"


def _not_judged(report: DriftReport) -> str:
    """Say what could not be judged, the most important first, and how much of the model it is."""
    left = [_shortened(_label(f.name), 20) for f in report.unjudged]
    if not left:
        return "All columns were judged."
    share = unjudged_share(report.columns)
    more = f" and {len(left) - _NAMED:,} more" if len(left) > _NAMED else ""
    told = f"Not judged: {len(left):,} of {len(report.columns):,} columns"
    worth = "" if share is None else f", {share:.0%} of the model's importance"
    return f"{told}{worth}: {', '.join(left[:_NAMED])}{more}"


def _draw(panel: Axes, name: str, series: Sequence[FeatureDrift | None]) -> None:
    newest = next((f for f in reversed(series) if f is not None), None)
    what = newest.furthest.name if newest else "distance"
    shown = [
        next((one for one in f.measurements if one.name == what), None)
        if f and f.distance is not None
        else None
        for f in series
    ]
    gap = float("nan")
    distances = [one.value if one and one.value is not None else gap for one in shown]
    thresholds = [one.threshold if one and one.threshold is not None else gap for one in shown]
    x: Sequence[float] = range(len(series))
    panel.plot(x, distances, color=_CALM, linewidth=1.4, zorder=3)
    # A step as wide as its window: seen where there is one window only, too.
    edges = [position + side for position in x for side in (-0.5, 0.5)]
    steps = [threshold for threshold in thresholds for _ in range(2)]
    panel.plot(edges, steps, color=_INK, linewidth=1.1, linestyle=(0, (4, 3)), zorder=2)
    for position, (feature, one) in enumerate(zip(series, shown, strict=True)):
        if feature is None or one is None or one.value is None:
            continue
        drifted = feature.drifted and not feature.expected
        color = _ALARM if drifted else _CALM
        panel.plot(
            position, one.value, "D" if drifted else "o", markersize=6, zorder=4, clip_on=False,
            markeredgecolor=color, markerfacecolor=color if feature.is_judged else "white",
        )  # fmt: skip
    _dress(panel, name, _note(newest), len(series))
    panel.margins(y=0.18)
    panel.set_ylim(0, None)
    most = math.inf if what in {"location", "spread"} else 1.05
    panel.set_ylim(0, min(most, max(panel.get_ylim()[1], 0.01)))


def _dress(panel: Axes, name: str, note: str, windows: int) -> None:
    """Give a panel its title, what its newest point is, and its axes."""
    title = panel.set_title(
        _label(name), loc="left", fontsize=10, color=_INK, pad=19, parse_math=False
    )
    _fit(title, panel.bbox.width)
    panel.annotate(
        note, (0, 1), xytext=(0, 7), xycoords="axes fraction",
        textcoords="offset points", fontsize=9, color=_MUTED, annotation_clip=False,
    )  # fmt: skip
    panel.set_xlim(-0.5, windows - 0.5)
    panel.locator_params(axis="y", nbins=4)
    panel.grid(axis="y", color=_GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(colors=_MUTED, labelsize=9, length=0)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color(_GRID)


def _note(newest: FeatureDrift | None) -> str:
    """Say what the newest point of a panel is."""
    if newest is None:
        return ""
    furthest = newest.furthest
    if furthest.value is None or furthest.threshold is None:
        return _verdict(newest)
    times = f"{furthest.value:.2g}, {newest.excess:.2g}x its threshold"
    return f"{furthest.name} {times}: {_verdict(newest)}"


def _ticks(labels: Sequence[str]) -> tuple[list[int], list[str]]:
    """Label as many windows as there is room for, four at most, the newest always among them."""
    room = max(1, min(4, _PANEL_CHARACTERS // max(len(label) + 2 for label in labels)))
    step = max(1, -(-len(labels) // room))
    shown = list(range(len(labels) - 1, -1, -step))[::-1]
    return shown, [labels[position] for position in shown]
