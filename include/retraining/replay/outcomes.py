"""Replays policies over a model's past: how many retrains would each have spent, what regained?

Real models are trained, one for each window that a policy could have chosen, on what a retrain
after that window would learn from. Every policy starts with the same first model and then decides
after each window, with what was known by then; a retrain counts as spent even if the duel with the
champion of that policy is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from include.retraining.errors import DataError
from include.retraining.replay.past import MIN_WINDOWS, Past
from include.retraining.replay.policies import Family, Policy, Walk

Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]

CLAIRVOYANT_RETRAINS = 16


class Outcome(NamedTuple):
    """What a policy spent and gained; the mean of it, where the past was begun at several windows.

    `metric` is the mean over all windows after the first model's, each scored by the champion of
    that time; `regained` is the share of what promoting a new model after every window gains over
    never. `spread` is the standard deviation of that share over the beginnings. What was retrained
    and promoted is that of the first beginning.
    """

    policy: str
    family: Family
    retrains: float
    promotions: float
    metric: float
    regained: float
    spread: float
    regret: float
    retrained: tuple[str, ...]
    promoted: tuple[str, ...]


def replay(
    past: Past, policies: Sequence[Policy], *, starts: int = 1, progress: Progress | None = None
) -> list[Outcome]:
    """Run policies over the past, best first, with the clairvoyant choices as an upper bound.

    Parameters
    ----------
    past : Past
        The windows and models.
    policies : sequence of Policy
        With "never" and "after every window" among them.
    starts : int
        From so many beginnings, each one window later than the last: which of two neighbouring
        windows is trained on is worth several points of the regained share, and means over
        beginnings even that out.
    progress : callable, optional
        Wraps an iterable given with a title and a length, to show how far it is.

    Raises
    ------
    DataError
        The last beginning leaves too few windows.
    """
    shown = progress or _silent
    if starts < 1 or past.last - past.first - starts + 2 < MIN_WINDOWS:
        raise DataError(
            f"--starts: must be from 1 to {past.last - past.first + 2 - MIN_WINDOWS}, which leaves "
            f"{MIN_WINDOWS - 1} windows after the last beginning, got {starts}"
        )
    for at in shown(past.choices, "training models", len(past.choices)):
        past.model(at)
    pasts = [past.begun_at(past.first + later) for later in range(starts)]
    pairs = [(one, policy) for one in pasts for policy in policies]
    walks = [(policy, _walk(one, policy)) for one, policy in shown(pairs, "policies", len(pairs))]
    size = len(policies)
    runs = [_outcomes(one, walks[n * size : (n + 1) * size]) for n, one in enumerate(pasts)]
    found = [_averaged([run[name] for run in runs]) for name in runs[0] if name in runs[-1]]
    named = {policy.name for policy in policies}
    return [
        *sorted((o for o in found if o.policy in named), key=lambda o: -o.metric),
        *(o for o in found if o.policy not in named),
    ]


def _outcomes(past: Past, walked: Sequence[tuple[Policy, Walk]]) -> dict[str, Outcome]:
    """Give what each policy, and each number of clairvoyant choices, spent and gained."""
    never = _mean(past, [])
    every = _mean(past, list(past.choices)[1:])
    best = max(_mean(past, walk.promoted) for _, walk in walked)

    def outcome(name: str, family: Family, walk: Walk) -> Outcome:
        mean = _mean(past, walk.promoted)
        return Outcome(
            policy=name,
            family=family,
            retrains=len(walk.retrained),
            promotions=len(walk.promoted),
            metric=mean,
            regained=(mean - never) / (every - never) if every != never else 0.0,
            spread=0.0,
            regret=best - mean,
            retrained=tuple(past.windows[at].batch.partition for at in walk.retrained),
            promoted=tuple(past.windows[at].batch.partition for at in walk.promoted),
        )

    bounds = [Walk(past, past.first, 0, points, points) for points in _clairvoyant(past)]
    found = [outcome(policy.name, policy.family, walk) for policy, walk in walked]
    found += [outcome(f"clairvoyant, {len(w.promoted)} retrains", "bound", w) for w in bounds]
    return {one.policy: one for one in found}


def _averaged(outcomes: Sequence[Outcome]) -> Outcome:
    """Give the mean of what one policy spent and gained from several beginnings."""
    if len(outcomes) == 1:
        return outcomes[0]

    def mean(name: str) -> float:
        return float(np.mean([getattr(one, name) for one in outcomes]))

    return outcomes[0]._replace(
        retrains=mean("retrains"),
        promotions=mean("promotions"),
        metric=mean("metric"),
        regained=mean("regained"),
        spread=float(np.std([one.regained for one in outcomes], ddof=1)),
        regret=mean("regret"),
    )


def _silent(items: Iterable[Any], _title: str, _length: int) -> Iterable[Any]:
    return items


def _walk(past: Past, policy: Policy) -> Walk:
    """Let a policy decide after every window but the first and the last."""
    walk = Walk(past, champion=past.first, now=past.first)
    for now in list(past.choices)[1:]:
        walk.now = now
        if policy.decide(walk):
            walk.retrained.append(now)
            if past.promotes(walk.champion, now):
                walk.promoted.append(now)
                walk.champion = now
    return walk


def _mean(past: Past, points: Sequence[int]) -> float:
    """Mean of the metric when models are trained after the first window and after `points`."""
    values, champion = [], past.first
    chosen = set(points)
    for window in range(past.first + 1, past.last + 1):
        values.append(past.metric(champion, window))
        if window in chosen:
            champion = window
    return float(np.nanmean(values))


def _clairvoyant(past: Past) -> list[list[int]]:
    """Give the best windows to retrain after, for each number of retrains, by dynamic programming.

    Known only afterwards; no policy can be better.
    """
    windows = range(past.first + 1, past.last + 1)
    gains = {
        (champion, window): np.nan_to_num(past.metric(champion, window))
        for champion in past.choices
        for window in windows
        if window > champion
    }
    # best[champion]: the largest sum so far that ends with this champion, and how it came about
    best: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {(past.first, 0): (0.0, ())}
    most = min(CLAIRVOYANT_RETRAINS, len(past.choices) - 1)
    for window in windows:
        reached: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {}
        for (champion, spent), (total, points) in best.items():
            grown = total + gains[champion, window]
            options = [((champion, spent), points)]
            if spent < most and window < past.last:
                options.append(((window, spent + 1), (*points, window)))
            for state, way in options:
                if state not in reached or grown > reached[state][0]:
                    reached[state] = (grown, way)
        best = reached
    found = []
    for count in range(1, most + 1):
        ends = [value for (_, spent), value in best.items() if spent == count]
        found.append(list(max(ends)[1]))
    return found
