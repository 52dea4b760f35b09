"""What all columns of a model say about how much the windows of one differ.

A variance of few windows is sometimes small by chance, and then an ordinary next window looks odd.
Columns of one table share their windows, so the variances of all say what that of one may be.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SMALLEST = 1e-6  # variance: no column repeats itself more exactly
_ALIKE = 1e-3  # of log variances beyond chance; below it, the columns are as good as alike
_COLUMNS = 3  # fewer do not show how alike columns are


class Prior(NamedTuple):
    """What the variances of all columns say about that of one: worth `freedom` windows more.

    `most` is how many all of them have: a moderated variance is known no better.
    """

    variance: float = 0.0
    freedom: float = 0.0
    most: float = float("inf")

    def moderate(self, variance: float, freedom: float) -> tuple[float, float]:
        """Give a column's variance and its degrees of freedom, with those of all."""
        total = self.freedom + freedom
        moderated = (self.freedom * self.variance + freedom * variance) / total
        return moderated, max(freedom, min(total, self.most))


def find_prior(variances: NDArray[np.float64], freedom: float) -> Prior:
    """Estimate the law that the variances of some columns are drawn from (Smyth 2004, section 6.2).

    Parameters
    ----------
    variances : ndarray of shape (n_columns,)
        Each with `freedom` degrees of freedom.

    Returns
    -------
    Prior
        Worth nothing with fewer than three columns: they do not show how alike columns are.
    """
    from scipy.special import digamma, polygamma

    if len(variances) < _COLUMNS or freedom < 1:
        return Prior()
    logs = np.log(np.maximum(variances, SMALLEST)) - digamma(freedom / 2) + np.log(freedom / 2)
    beyond = float(logs.var(ddof=1)) - float(polygamma(1, freedom / 2))
    prior = 2 * _trigamma_inverse(beyond) if beyond > _ALIKE else 2 / _ALIKE
    scale = float(np.exp(logs.mean() + digamma(prior / 2) - np.log(prior / 2)))
    return Prior(scale, min(prior, 2 / _ALIKE), len(variances) * freedom)


def _trigamma_inverse(value: float) -> float:
    """Solve ``trigamma(x) = value`` by Newton's method, as in Smyth's appendix."""
    from scipy.special import polygamma

    found = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, found))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, found))
        found += step
        if -step / found < 1e-8:
            break
    return found
