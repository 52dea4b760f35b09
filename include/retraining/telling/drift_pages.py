"""Drift for people: an Evidently report of one batch, and a small picture of the last windows.

Neither decides anything; the verdict rests on `measure_columns` alone.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from include.retraining.records import DriftReport, FeatureDrift

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SAMPLED_ROWS = 5_000  # Evidently's cost grows with rows, what a reader sees does not
PICTURED_FEATURES = 6
_SEED = 0
_INK, _MUTED, _GRID, _CALM, _ALARM = "#1f2933", "#7b8794", "#e4e7eb", "#2f6f9f", "#c8372d"


def evidently_html(reference: pd.DataFrame, current: pd.DataFrame) -> bytes:
    """Render Evidently's data drift report of two windows as one self-contained HTML page.

    Parameters
    ----------
    reference, current : pandas.DataFrame
        The same columns. More than 5,000 rows a side are sampled, with a fixed seed.

    Returns
    -------
    bytes
        The page, UTF-8; some megabytes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated numpy names, divisions by zero on constants
        from evidently import Dataset, Report
        from evidently.presets import DataDriftPreset

        sides = [
            Dataset.from_pandas(frame.sample(min(len(frame), SAMPLED_ROWS), random_state=_SEED))
            for frame in (current, reference)
        ]
        page = Report([DataDriftPreset()]).run(*sides).get_html_str(as_iframe=False)
    return str(page).encode()


def picture(reports: Sequence[DriftReport]) -> bytes:
    """Draw each feature's distance against its threshold over the last windows.

    Parameters
    ----------
    reports : sequence of DriftReport
        Oldest first. The features furthest beyond their threshold in any of them are drawn, six at
        most.

    Returns
    -------
    bytes
        A PNG of some 50 kB.

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

    names = _most_drifted(reports)
    rows = max(1, -(-len(names) // 2))
    figure = Figure(figsize=(10, 1.1 + 2.15 * rows), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    last = reports[-1]
    version = f"version {last.champion_version}" if last.champion_version else "no champion"
    figure.suptitle(
        f"{last.batch.model}: drift of {last.batch.partition} against {version}",
        x=0.055, y=1 - 0.16 / figure.get_figheight(), ha="left", va="top",
        fontsize=13, fontweight="bold", color=_INK,
    )  # fmt: skip
    panels = figure.subplots(rows, 2, squeeze=False).ravel()
    for panel, name in zip(panels, names, strict=False):
        _draw(panel, name, [_find(report, name) for report in reports])
        panel.set_xticks(*_ticks([report.batch.partition for report in reports]))
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    if not names:
        panels[0].set_visible(True)
        panels[0].axis("off")
        panels[0].text(0, 0.5, "No feature could be measured.", color=_MUTED, fontsize=11)
    figure.text(
        0.055, 0.14 / figure.get_figheight(),
        "line: distance, or what is named   dashed: threshold   red: drifted   hollow: no verdict",
        fontsize=8.5, color=_MUTED,
    )  # fmt: skip
    top = 1 - 0.78 / figure.get_figheight()
    bottom = 0.62 / figure.get_figheight()
    figure.subplots_adjust(left=0.055, right=0.965, top=top, bottom=bottom, hspace=0.5, wspace=0.17)
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()


def _most_drifted(reports: Sequence[DriftReport]) -> list[str]:
    excess: dict[str, float] = {}
    for report in reports:
        for feature in report.columns:
            if feature.distance is not None:
                excess[feature.name] = max(excess.get(feature.name, 0.0), feature.excess)
    return sorted(excess, key=lambda name: -excess[name])[:PICTURED_FEATURES]


def _find(report: DriftReport, name: str) -> FeatureDrift | None:
    return next((feature for feature in report.columns if feature.name == name), None)


def _draw(panel: Axes, name: str, series: Sequence[FeatureDrift | None]) -> None:
    newest = next((f for f in reversed(series) if f is not None), None)
    what = newest.measurements.index(newest.furthest) if newest else 0
    shown = [f.measurements[what] if f and f.distance is not None else None for f in series]
    gap = float("nan")
    distances = [one.value if one and one.value is not None else gap for one in shown]
    thresholds = [one.threshold if one and one.threshold is not None else gap for one in shown]
    x: Sequence[float] = range(len(series))
    if len(series) == 1:  # a single window has no line to follow
        x, thresholds = [-0.5, 0.5], thresholds * 2
        distances = [gap, gap]
    panel.plot(x, thresholds, color=_MUTED, linewidth=1.1, linestyle=(0, (4, 3)), zorder=2)
    panel.plot(x, distances, color=_CALM, linewidth=1.6, zorder=3)
    for position, (feature, one) in enumerate(zip(series, shown, strict=True)):
        if feature is None or one is None or one.value is None:
            continue
        color = _ALARM if feature.drifted and not feature.expected else _CALM
        face = "white" if feature.state == "insufficient" else color
        panel.plot(
            position, one.value, "o", markersize=5.2,
            markeredgecolor=color, markerfacecolor=face, zorder=4,
        )  # fmt: skip
    note = ""
    if newest is not None and newest.furthest.value is not None and newest.furthest.threshold:
        which = f"{newest.furthest.name} " if what else ""
        note = f"{which}{newest.furthest.value:.2f}, {newest.excess:.1f}x its threshold"
    if newest is not None and newest.expected:
        note += " (expected)"
    panel.set_title(name, loc="left", fontsize=10, color=_INK, pad=6)
    panel.set_title(note, loc="right", fontsize=8.5, color=_MUTED, pad=6)
    panel.set_ylim(0, None)
    panel.margins(x=0.03, y=0.18)
    panel.set_ylim(0, min(1.05, panel.get_ylim()[1]))
    panel.locator_params(axis="y", nbins=4)
    panel.grid(axis="y", color=_GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(colors=_MUTED, labelsize=8, length=0)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color(_GRID)


def _ticks(labels: Sequence[str]) -> tuple[list[int], list[str]]:
    """Label at most five windows, the newest always among them."""
    step = max(1, -(-len(labels) // 5))
    shown = list(range(len(labels) - 1, -1, -step))[::-1]
    return shown, [labels[position] for position in shown]
