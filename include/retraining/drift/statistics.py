"""Two-sample statistics: how far two samples lie apart, and how often chance alone does that.

Distances lie in [0, 1] and do not depend on the sample size; p-values and critical distances do.
Symbols used throughout: *n* and *m* are the sizes of reference and current sample, *F* and *G*
their empirical distribution functions, *p_i* and *q_i* the shares of level *i*.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from include.retraining.drift.cells import CellCounts
from include.retraining.drift.gap import largest_gap
from include.retraining.drift.number_types import comparable

KS_CHANCE_SQUARE = np.pi**2 / 12  # mean of D^2 nm / (n + m) under one continuous law
KS_CHANCE_SPREAD = 0.65  # standard deviation of D^2 in units of that mean
NORMAL_SPREAD = 2**0.5  # the same of the square of what is normal, as a shift: the most there is
_EXACT_ROWS = 1000  # up to n * m = 1e6 an exact p-value costs about 5 ms


def ks_distance(reference: ArrayLike, current: ArrayLike) -> float:
    r"""Give the exact two-sample Kolmogorov-Smirnov distance.

    .. math:: D = \sup_x |F(x) - G(x)|

    Parameters
    ----------
    reference : array-like of shape (n,)
        Numbers, booleans or datetimes. Infinities are values like any other. NaN and None (NaT) are
        missing: they are left out, and their share has to be compared apart.
    current : array-like of shape (m,)
        As `reference`; of any other length.

    Returns
    -------
    float
        *D* in [0, 1]. Ties within and between the samples are exact; whole numbers beyond 2**53 are
        not rounded as long as both sides are whole numbers.

    Raises
    ------
    ValueError
        A side has no value left once the missing ones are dropped, or holds something without an
        order.

    References
    ----------
    Smirnov, N. (1939). On the estimation of the discrepancy between empirical curves of
    distribution for two independent samples. Bulletin Mathematique de l'Universite de Moscou 2.

    Examples
    --------
    >>> ks_distance([1, 2, 3, 4], [3, 4, 5, 6])
    0.5
    >>> ks_distance([0.0, float("inf")], [0.0, float("nan")])
    0.5
    """
    left, right = comparable(_present(reference, "reference"), _present(current, "current"))
    return largest_gap(np.sort(left), np.sort(right))


def ks_p_value(distance: float, n: int, m: int) -> float:
    r"""Give the probability that two samples of one continuous law lie at least `distance` apart.

    Exact by counting lattice paths where ``n * m <= 1e6`` (to 1e-9 absolute: tiny probabilities are
    differences from 1); else Kolmogorov's limit of :math:`\sqrt{nm/(n+m)} D`, larger than the
    exact value, by less than a fifth where both samples have 500 values. Ties make both
    conservative.

    Parameters
    ----------
    distance : float
        The statistic *D*, in [0, 1].
    n, m : int
        Sample sizes, at least 1.

    Returns
    -------
    float
        The two-sided p-value, in [0, 1].

    References
    ----------
    Hodges, J. L. (1958). The significance probability of the Smirnov two-sample test. Arkiv for
    Matematik 3, 469-486.

    Examples
    --------
    >>> round(ks_p_value(1.0, 3, 3), 6)
    0.1
    >>> round(ks_p_value(0.05, 2000, 2000), 3)
    0.013
    """
    if n < 1 or m < 1:
        raise ValueError(f"both samples need a value, got n={n} and m={m}")
    if distance <= 0:
        return 1.0
    if n * m <= _EXACT_ROWS**2:
        exact = _exact_ks_p_value(distance, n, m)
        if exact > 1e-9:  # below, too few digits are left of 1 - P
            return exact
    from scipy.special import kolmogorov

    return float(kolmogorov(distance * (n * m / (n + m)) ** 0.5))


def ks_critical_distance(alpha: float, n: int, m: int) -> float:
    r"""Give the distance that two samples of one law exceed with probability at most `alpha`.

    Smirnov's tail with Hodges' correction for the sample sizes,

    .. math:: 2 \exp(-2z^2 - cz) = \alpha, \quad z = D\sqrt{\tfrac{nm}{n+m}}, \quad
              c = \frac{2 (\max + 2 \min)}{3 \sqrt{nm(n+m)}}

    solved for *D*; meant for ``alpha <= 0.2`` and at least some 50 values a side, where it agrees
    with the exact law to about 1 %.

    Parameters
    ----------
    alpha : float
        Probability in (0, 1).
    n, m : int
        Sample sizes, at least 1.

    Returns
    -------
    float
        The critical distance, at most 1 (which no two samples can exceed).

    References
    ----------
    Hodges, J. L. (1958), equation 5.3.

    Examples
    --------
    >>> round(ks_critical_distance(0.05, 1000, 1000), 4)
    0.0602
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}")
    large, small = max(n, m), min(n, m)
    correction = 2 * (large + 2 * small) / (3 * (n * m * (n + m)) ** 0.5)
    z = (-correction + (correction**2 + 8 * np.log(2 / alpha)) ** 0.5) / 4
    return float(min(1.0, z * ((n + m) / (n * m)) ** 0.5))


def shift_chance_square(reference: CellCounts, current: CellCounts) -> float:
    r"""Give the mean squared Cliff's delta of two samples of one law: its variance by chance.

    .. math:: \frac{n + m + 1}{3nm} (1 - T), \quad T = \frac{\sum_j t_j^3 - t_j}{(n+m)^3 - (n+m)}

    with *t_j* the sizes of the ties, the Wilcoxon-Mann-Whitney test's own variance. Against a shift
    that test has more power than the Kolmogorov-Smirnov distance (a relative efficiency of 0.95
    against 0.64 for normal data), against a change of shape none.

    Parameters
    ----------
    reference, current : CellCounts
        In the same cells, not empty. What shares a cell is a tie, as it is for the shift.

    References
    ----------
    Mann, H. B. and Whitney, D. R. (1947). On a test of whether one of two random variables is
    stochastically larger than the other. Annals of Mathematical Statistics 18.

    Examples
    --------
    >>> from include.retraining.drift.cells import Edges
    >>> values = Edges(np.arange(20.0)).count(np.arange(20.0))
    >>> round(shift_chance_square(values, values), 6)
    0.034103
    """
    n, m = reference.size, current.size
    ties = (reference.held + current.held).astype(np.float64)
    tied = float((ties * (ties * ties - 1)).sum()) / ((n + m) ** 3 - (n + m))
    return (n + m + 1) / (3 * n * m) * max(0.0, 1 - tied)


def total_variation_distance(reference_counts: ArrayLike, current_counts: ArrayLike) -> float:
    r"""Give the total-variation distance of two samples of levels.

    .. math:: TV = \tfrac12 \sum_i |p_i - q_i|

    Parameters
    ----------
    reference_counts, current_counts : array-like of shape (n_levels,)
        How often each level occurs, in one order; missing values are a level, a level of one side
        is 0 on the other.

    Returns
    -------
    float
        *TV* in [0, 1]: the share of rows that would have to change their level.

    Raises
    ------
    ValueError
        The shapes differ, or a side counts nothing.

    Examples
    --------
    >>> total_variation_distance([50, 50, 0], [25, 50, 25])
    0.25
    """
    reference, current = _counts(reference_counts, current_counts)
    return float(np.abs(reference / reference.sum() - current / current.sum()).sum() / 2)


class Homogeneity(NamedTuple):
    """Pearson's test that two samples of levels follow one law."""

    statistic: float
    degrees_of_freedom: int
    p_value: float


def homogeneity_test(
    reference_counts: ArrayLike, current_counts: ArrayLike, *, min_expected: float = 5.0
) -> Homogeneity:
    r"""Test with chi-squared whether two samples of levels follow one law.

    .. math:: X^2 = \sum_i \frac{(r_i - E_{ri})^2}{E_{ri}} + \frac{(c_i - E_{ci})^2}{E_{ci}}

    on the 2 x levels table of counts *r* and *c*, so that the reference is a sample like the
    current one and not the truth. Levels whose expected count falls below `min_expected` on a side
    are pooled.

    Parameters
    ----------
    reference_counts, current_counts : array-like of shape (n_levels,)
        How often each level occurs, in one order.
    min_expected : float, default=5
        Cochran's rule for the chi-squared law to hold.

    Returns
    -------
    Homogeneity
        Where a single level remains: statistic 0, no degree of freedom, p-value 1.

    References
    ----------
    Cochran, W. G. (1954). Some methods for strengthening the common chi-squared tests. Biometrics
    10.

    Examples
    --------
    >>> homogeneity_test([60, 40], [40, 60])  # doctest: +ELLIPSIS
    Homogeneity(statistic=8.0, degrees_of_freedom=1, p_value=0.0046...)
    """
    from scipy.special import chdtrc

    reference, current = _counts(reference_counts, current_counts)
    table = np.vstack([reference, current])
    rare = rare_levels(reference, current, min_expected=min_expected)
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    freedom = table.shape[1] - 1
    if freedom == 0:
        return Homogeneity(0.0, 0, 1.0)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    return Homogeneity(statistic, freedom, float(chdtrc(freedom, statistic)))


def rare_levels(
    reference_counts: NDArray[Any], current_counts: NDArray[Any], *, min_expected: float = 5.0
) -> NDArray[np.bool_]:
    """Say which levels are expected too rarely on a side, were both sides of one law."""
    together = reference_counts + current_counts
    smaller = min(reference_counts.sum(), current_counts.sum())
    return np.asarray(together * (smaller / together.sum()) < min_expected)


def tv_critical_distance(
    alpha: float, reference_counts: ArrayLike, current_counts: ArrayLike
) -> float:
    r"""Give the distance that samples of one law exceed with probability at most `alpha`.

    .. math:: \tfrac12 \sum_i \min\left(2 p_i, \sqrt{\tfrac2\pi p_i (1 - p_i) s}\right)
              + \sqrt{\tfrac s2 \ln \tfrac1\alpha}, \quad s = \tfrac1n + \tfrac1m

    The sum is what chance adds on average, with *p_i* from both samples together; the last term
    bounds what it adds beyond (McDiarmid: one row moves the distance by at most 1/n or 1/m). For
    two levels, the smaller exact normal bound of the difference of two shares is given.

    Parameters
    ----------
    alpha : float
        Probability in (0, 1).
    reference_counts, current_counts : array-like of shape (n_levels,)
        How often each level occurs, in one order.

    Returns
    -------
    float
        The critical distance, at most 1.

    References
    ----------
    McDiarmid, C. (1989). On the method of bounded differences. Surveys in Combinatorics, 148-188.

    Examples
    --------
    >>> round(tv_critical_distance(0.01, [600, 300, 100], [550, 350, 100]), 3)
    0.09
    """
    from scipy.special import ndtri

    reference, current = _counts(reference_counts, current_counts)
    share, s = _pooled_shares(reference, current)
    if len(share) == 2:
        spread = (share[0] * (1 - share[0]) * s) ** 0.5
        return float(min(1.0, -ndtri(alpha / 2) * spread + s / 2))  # s / 2: continuity
    return float(min(1.0, _mean_by_chance(share, s) + (s / 2 * np.log(1 / alpha)) ** 0.5))


class TotalVariationByChance(NamedTuple):
    """The squared total-variation distance of two samples of one law.

    Its mean, and its standard deviation in units of that.
    """

    mean_square: float
    spread: float


def tv_by_chance(reference_counts: ArrayLike, current_counts: ArrayLike) -> TotalVariationByChance:
    r"""Give what the squared total-variation distance of samples of one law is, approximately.

    The distance is taken for normal, with the mean of `tv_critical_distance` and the variance
    :math:`\tfrac14 (1 - \tfrac2\pi) \sum_i p_i (1 - p_i) s` of levels that vary independently of
    each other. Two levels do not: there the distance is the amount of one normal variable.

    Examples
    --------
    >>> round(tv_by_chance([500, 500], [500, 500]).mean_square, 6)  # p (1 - p) s
    0.0005
    """
    share, s = _pooled_shares(*_counts(reference_counts, current_counts))
    each = share * (1 - share) * s
    if len(share) == 2:
        return TotalVariationByChance(float(each[0]), NORMAL_SPREAD)
    variance = float((1 - 2 / np.pi) / 4 * each.sum())
    mean = _mean_by_chance(share, s)
    mean_square = mean**2 + variance
    if not mean_square:
        return TotalVariationByChance(0.0, 0.0)
    deviation = (4 * mean**2 * variance + 2 * variance**2) ** 0.5
    return TotalVariationByChance(mean_square, deviation / mean_square)


def _pooled_shares(
    reference: NDArray[np.float64], current: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    n, m = float(reference.sum()), float(current.sum())
    return (reference + current) / (n + m), 1 / n + 1 / m


def _mean_by_chance(share: NDArray[np.float64], s: float) -> float:
    typical = np.sqrt(2 / np.pi * share * (1 - share) * s)
    return float(np.minimum(2 * share, typical).sum() / 2)


def psi(reference_counts: ArrayLike, current_counts: ArrayLike) -> float:
    r"""Give the population stability index of two samples of levels or bins.

    .. math:: PSI = \sum_i (q_i - p_i) \ln \frac{q_i}{p_i}

    Parameters
    ----------
    reference_counts, current_counts : array-like of shape (n_levels,)
        How often each level or bin occurs, in one order. Half a row is added to every level, so
        that an empty one stays finite.

    Returns
    -------
    float
        At least 0. Reported for those who know it; no decision rests on it, because its customary
        limits (0.1, 0.2) ignore the sample size and miss shifts of 0.3 standard deviations.

    References
    ----------
    Siddiqi, N. (2006). Credit Risk Scorecards. Wiley.

    Examples
    --------
    >>> round(psi([500, 500], [400, 600]), 3)
    0.04
    """
    reference, current = _counts(reference_counts, current_counts)
    reference, current = reference + 0.5, current + 0.5
    p, q = reference / reference.sum(), current / current.sum()
    return float(((q - p) * np.log(q / p)).sum())


def wasserstein_distance(reference: ArrayLike, current: ArrayLike) -> float:
    r"""Give the first Wasserstein distance, the mean way a value has to travel.

    .. math:: W = \int |F(x) - G(x)| \, dx

    Parameters
    ----------
    reference, current : array-like of shape (n,), (m,)
        Finite numbers; NaN is left out.

    Returns
    -------
    float
        At least 0, in the unit of the values; inf where a side holds an infinity the other does not
        match.

    Raises
    ------
    ValueError
        A side has no value left.

    Examples
    --------
    >>> wasserstein_distance([0.0, 1.0], [5.0, 6.0])
    5.0
    """
    left = np.sort(_present(reference, "reference").astype(np.float64))
    right = np.sort(_present(current, "current").astype(np.float64))
    points = np.sort(np.concatenate([left, right]))
    at = points[:-1]
    gap = np.abs(
        np.searchsorted(left, at, side="right") / len(left)
        - np.searchsorted(right, at, side="right") / len(right)
    )
    apart = gap > 0  # where the functions meet, even an infinite stretch costs nothing
    return float((gap[apart] * (points[1:][apart] - at[apart])).sum())


def _present(values: ArrayLike, side: str) -> NDArray[Any]:
    array = np.asarray(values).ravel()
    if array.dtype.kind == "O":
        array = np.asarray([value for value in array if value is not None])
        if array.dtype.kind == "O":
            raise ValueError(f"{side}: must be numbers, booleans or datetimes, got mixed objects")
    if array.dtype.kind not in "biufmM":
        raise ValueError(f"{side}: must be numbers, booleans or datetimes, got {array.dtype}")
    if array.dtype.kind in "mM":
        array = array[~np.isnat(array)]
    elif array.dtype.kind == "f":
        array = array[~np.isnan(array)]
    if not len(array):
        raise ValueError(
            f"{side}: has no value that is not missing; compare the missing share instead"
        )
    return array


def _counts(
    reference: ArrayLike, current: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    left, right = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(
            f"counts must be in one order of levels, got {left.shape} and {right.shape}"
        )
    if left.sum() <= 0 or right.sum() <= 0:
        raise ValueError("a side counts nothing; compare the missing share instead")
    return left, right


def _exact_ks_p_value(distance: float, n: int, m: int) -> float:
    """Count the lattice paths from (0, 0) to (n, m) that stay close to the diagonal.

    Every order of the pooled values is one path, all equally likely under one continuous law. The
    number of paths to (i, j) is the running sum over row i - 1, cut to the corridor; rows are
    rescaled so that they neither overflow nor vanish.
    """
    n, m = min(n, m), max(n, m)
    steps = round(distance * n * m)  # of which i*m - j*n is made: the statistic in whole numbers
    j = np.arange(m + 1)
    paths = (j * n < steps).astype(np.float64)
    log_scale = 0.0
    for i in range(1, n + 1):
        low = max(0, (i * m - steps) // n + 1)
        high = min(m, -((-i * m - steps) // n) - 1)
        if high < low:
            return 1.0
        paths[low : high + 1] = np.cumsum(paths[low : high + 1])
        paths[:low] = 0.0
        paths[high + 1 :] = 0.0
        largest = np.max(paths[low : high + 1])
        if largest == 0.0:
            return 1.0
        paths[low : high + 1] /= largest
        log_scale += np.log(largest)
    from scipy.special import gammaln

    log_all = gammaln(n + m + 1) - gammaln(n + 1) - gammaln(m + 1)
    return float(np.clip(-np.expm1(np.log(paths[m]) + log_scale - log_all), 0.0, 1.0))
