"""Shows what policies spent and gained: as a table for people, as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from include.retraining.replay.outcomes import Outcome
from include.retraining.replay.past import Past


def as_json(past: Past, outcomes: Sequence[Outcome], *, starts: int = 1) -> str:
    """Give the outcomes for programs."""
    return json.dumps(
        {
            "model": past.spec.model,
            "metric": past.spec.gate.metric,
            "first": past.windows[past.first].batch.partition,
            "starts": starts,
            "windows": past.last - past.first,
            "policies": [outcome._asdict() for outcome in outcomes],
        },
        indent=2,
    )


def as_table(past: Past, outcomes: Sequence[Outcome], *, starts: int = 1) -> str:
    """Give the outcomes for people: one line per policy, best first."""
    first, last = past.windows[past.first].batch, past.windows[past.last].batch
    title = (
        f"{past.spec.model}: {past.last - past.first} windows after the first model "
        f"({first.partition}), up to {last.partition}; mean {past.spec.gate.metric}"
    )
    averaged = starts > 1
    if averaged:
        title += f"; means of {starts} beginnings, each a window later than the last"
    regained = "regained ± sd" if averaged else "regained"
    width = max([34, *(len(outcome.policy) for outcome in outcomes)])
    head = ("policy", "retrains", "promoted", "mean", regained, "regret")
    lines = [
        title,
        "",
        "{:{w}s} {:>8s}  {:>8s}  {:>6s}  {:>8s}  {:>7s}".format(*head, w=width),
    ]
    for outcome in outcomes:
        if outcome.policy.startswith("clairvoyant") and outcome.retrains not in {5, 10}:
            continue
        lines.append(
            f"{outcome.policy:{width}s} {round(outcome.retrains, 1):8g}  "
            f"{round(outcome.promotions, 1):8g}  {outcome.metric:6.4f}  {outcome.regained:8.0%}"
            f"{f' ± {outcome.spread:3.0%}' if averaged else ''}  {outcome.regret:7.4f}"
        )
    lines += [
        "",
        "regained: share of what promoting a new model after every window gains over never",
        "regret:   what the best policy here has more" + (" each time" if averaged else ""),
    ]
    return "\n".join(lines)
