"""Two samples of levels compared: rare, new and missing ones included."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from include.retraining.drift.calibration import Chance
from include.retraining.drift.columns import LevelColumn
from include.retraining.drift.statistics import (
    homogeneity_test,
    psi,
    rare_levels,
    total_variation_distance,
    tv_by_chance,
    tv_critical_distance,
)


class LevelComparison(NamedTuple):
    """How far two samples of levels lie apart.

    Levels too rare to compare one by one count as one level, levels the reference has never seen as
    one, and missing values as one. `unseen` is the share of new levels that is no news (Good and
    Turing: the share of the reference that occurs once); it is part of what the distance has to
    exceed.
    """

    distance: float
    p_value: float
    psi: float
    new_share: float
    rare_share: float
    unseen: float
    reference_counts: tuple[float, ...]
    current_counts: tuple[float, ...]

    def chance(self, alpha: float) -> Chance:
        """Give what samples of one law show, with the distance exceeded at most by `alpha`."""
        counts = self.reference_counts, self.current_counts
        by_chance = tv_by_chance(*counts)
        return Chance(
            critical=min(1.0, self.unseen + tv_critical_distance(alpha, *counts)),
            mean_square=min(1.0, self.unseen + by_chance.mean_square**0.5) ** 2,
            spread=by_chance.spread,
        )


def compare_levels(reference: LevelColumn, current: LevelColumn) -> LevelComparison:
    """Compare two samples of levels; each needs at least one row.

    References
    ----------
    Good, I. J. (1953). The population frequencies of species and the estimation of population
    parameters. Biometrika 40, 237-264.
    """
    names = [*reference.counts, *(name for name in current.counts if name not in reference.counts)]
    r = np.array([reference.counts.get(name, 0) for name in names], dtype=np.float64)
    c = np.array([current.counts.get(name, 0) for name in names], dtype=np.float64)
    missing = (reference.rows - r.sum(), current.rows - c.sum())
    new = r == 0
    rare = rare_levels(r, c) & ~new if names else new
    kept = ~rare & ~new
    pools = np.array(
        [[r[rare].sum(), c[rare].sum()], [0.0, c[new].sum()], [missing[0], missing[1]]]
    )
    left = np.concatenate([r[kept], pools[:, 0]])
    right = np.concatenate([c[kept], pools[:, 1]])
    used = left + right > 0
    left, right = left[used], right[used]
    return LevelComparison(
        distance=min(1.0, total_variation_distance(left, right)),
        p_value=homogeneity_test(np.append(r, missing[0]), np.append(c, missing[1])).p_value,
        psi=psi(left, right),
        new_share=float(c[new].sum() / current.rows),
        rare_share=float(r[rare].sum() / reference.rows),
        unseen=float((r == 1).sum() / reference.rows),
        reference_counts=tuple(left),
        current_counts=tuple(right),
    )
