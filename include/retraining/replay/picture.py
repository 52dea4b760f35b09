"""Draws retrains spent against metric regained."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from include.retraining.replay.outcomes import Outcome
from include.retraining.replay.past import Past

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = {"never", "after every window"}  # of the bounds, in the picture


def as_picture(past: Past, outcomes: Sequence[Outcome]) -> bytes:
    """Draw retrains spent against metric regained, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    styles: dict[str, tuple[str, str]] = {
        "schedule": ("#7b8794", "fixed schedules"),
        "growth": ("#2f6f9f", "training set grown by a share"),
    }
    for family, (color, title) in styles.items():
        curve = sorted((o.retrains, o.metric) for o in outcomes if o.family == family)
        axes.plot(*zip(*curve, strict=True), "o-", color=color, label=title, markersize=4)
    bound = [(o.retrains, o.metric) for o in outcomes if o.policy.startswith("clairvoyant")]
    if bound:
        axes.plot(
            *zip(*bound, strict=True), color="#c9d1d9", linestyle="--", label="clairvoyant choice"
        )
    axes.set_xlabel("retrains spent")
    axes.set_ylabel(f"mean {past.spec.gate.metric} over {past.last - past.first} windows")
    axes.set_title(f"{past.spec.model}: what each policy regains", loc="left", fontweight="bold")
    axes.set_xlim(-1, past.last - past.first)
    _name_points(axes, [o for o in outcomes if o.policy in NAMED or o.family in {"ours", "rule"}])
    axes.grid(axis="y", color="#e4e7eb")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()


def _name_points(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """Mark policies, each with its name where no other name is."""
    taken: list[tuple[float, float, float]] = []  # left, right and height of each name, in pixels
    for outcome in sorted(outcomes, key=lambda o: -o.metric):
        color = {"ours": "#c8372d", "rule": "#b07d2b"}.get(outcome.family, "#1f2933")
        point = (outcome.retrains, outcome.metric)
        axes.plot(*point, "D", color=color, markersize=7, zorder=5)
        x, y = axes.transData.transform(point)
        leftwards = outcome.retrains > axes.get_xlim()[1] * 0.6
        width = 7.5 * len(outcome.policy)
        left, right = (x - width, x) if leftwards else (x, x + width)
        height = y
        while any(
            start < right and left < end and abs(at - height) < 14 for start, end, at in taken
        ):
            height -= 3
        taken.append((left, right, height))
        axes.annotate(
            outcome.policy, point,
            xytext=(-9 if leftwards else 9, (height - y) * 0.65 - 3), textcoords="offset points",
            ha="right" if leftwards else "left", fontsize=8, color=color,
        )  # fmt: skip
