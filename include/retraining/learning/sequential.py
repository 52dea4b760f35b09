"""Is a model worse than another? Asked anew with every window of rows, as often as one likes.

Numbers only. The gain of one model on another on the same rows, window by window, is held against
two statements: "it is worse", and "it is worse by more than a margin". The evidence against each is
a ratio of likelihoods that may be looked at after every window, however many there will be.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

Floats = NDArray[np.float64]

# of the standard error of the first window: how much worse, or better, it might be
STEPS = np.array([1 / 4, 1 / 2, 1.0, 2.0, 4.0])
# what windows differ by beyond the sampling of rows, in standard errors, and how likely that is
SPREADS = ((0.0, 10.0), (0.5, 2.0), (1.0, 2.0), (2.0, 2.0))
# how alike neighbouring windows are in that, and how likely
LIKENESS = ((0.0, 0.5), (0.6, 0.5))
MAX_WINDOWS = 520  # ten years of weeks; the matrices are of this size at most


class Evidence(NamedTuple):
    """Natural logarithms of two ratios of likelihoods: so much likelier is the one than the other.

    `worse`: that it is worse, than that it is not. `not_worse`: that it is as good or better, than
    that it is worse by a margin.
    """

    worse: float
    not_worse: float


class _Law(NamedTuple):
    """One way in which windows may differ: how likely it is, and what makes them independent."""

    log_prior: float
    whitening: Floats
    log_scale: float


def evidence(gains: Floats, errors: Floats, *, margin: float) -> Evidence:
    r"""Weigh the gains of one model on another, window by window.

    A window's gain is normal around the true one, with its own sampling error and with what windows
    differ by on top, which may be alike in neighbouring windows:

    .. math:: d \sim N(\mu 1, S (I + \sigma^2 R_\phi) S), \quad S = diag(s),
              \quad R_{ij} = \phi^{|i-j|}

    The likelihood is averaged over :math:`\sigma`, :math:`\phi` with the same weights on both
    sides, and over how much worse (or better) it may be. The ratio is a Bayes factor; a model that
    is not worse ever gets beyond :math:`1/\alpha` with a probability of at most :math:`\alpha`,
    however often one looks (Ville 1939; Johari, Koomen, Pekelis and Walsh 2022, "Always valid
    inference"), under the average of those laws. `benchmarks.guard` says what holds under each.

    Parameters
    ----------
    gains : ndarray of shape (n_windows,)
        Of the model on the other, oldest first; higher is better.
    errors : ndarray of shape (n_windows,)
        Their standard errors, larger than 0.
    margin : float
        Larger than 0, in the unit of the gains.

    Raises
    ------
    ValueError
        There is no window, there are more than `MAX_WINDOWS`, or an error or the margin is not
        larger than 0.
    """
    count = len(gains)
    if not 0 < count <= MAX_WINDOWS:
        raise ValueError(f"there must be 1 to {MAX_WINDOWS} windows, got {count}")
    if not (np.asarray(errors) > 0).all() or margin <= 0:
        raise ValueError(f"errors and margin must be larger than 0, got {errors}, {margin}")
    scaled, ones = gains / errors, 1 / errors
    steps = STEPS * errors[0]
    none, worse, better, by_margin = [], [], [], []
    for law in _laws(count):
        z, u = law.whitening @ scaled, law.whitening @ ones
        base = float(law.log_prior - law.log_scale - 0.5 * z @ z)
        slope, weight = float(u @ z), float(u @ u)

        def likelihood(
            true: Any, base: float = base, slope: float = slope, weight: float = weight
        ) -> Any:
            return base + true * slope - 0.5 * true**2 * weight

        none.append(base)
        worse.append(logsumexp(likelihood(-steps)) - np.log(len(steps)))
        better.append(logsumexp(likelihood(np.append(steps, 0.0))) - np.log(len(steps) + 1))
        by_margin.append(likelihood(-margin))
    return Evidence(
        worse=float(logsumexp(worse) - logsumexp(none)),
        not_worse=float(logsumexp(better) - logsumexp(by_margin)),
    )


@cache
def _laws(count: int) -> tuple[_Law, ...]:
    found = []
    total = sum(weight for _, weight in SPREADS)
    apart = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    for spread, weight in SPREADS:
        for likeness, share in LIKENESS if spread else ((0.0, 1.0),):
            covariance = np.eye(count) + spread**2 * likeness**apart
            lower = np.linalg.cholesky(covariance)
            found.append(
                _Law(
                    log_prior=float(np.log(weight / total * share)),
                    whitening=np.linalg.inv(lower),
                    log_scale=float(np.log(np.diag(lower)).sum()),
                )
            )
    return tuple(found)
