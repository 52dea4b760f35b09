r"""How many independent rows a window's rows are worth: the design effect, read off its parts.

Rows that follow one another are often alike (an hour's weather on fifty flights), and then fewer
rows' worth of chance averages out. The mean squared distance of blocks, consecutive parts of the
windows, from the reference, in units of what independent rows would show, is the design effect *g*
(Kish): so many rows count as one.

Blocks are evidence only where they are as good as independent of each other (batch means; Law and
Kelton) and vary like a normal law. If a block still tells something about the next, or if a few lie
far off, the variation is slower or wilder than blocks can tell, and only whole windows say how
large it is. Eighths are tried first, then quarters.

References
----------
Kish, L. (1965). Survey Sampling. Wiley. Design effects.
Law, A. M. and Kelton, W. D. (1984). Confidence intervals for steady-state simulations: a survey of
fixed sample size procedures. Operations Research 32, 1221-1239. Batch means.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from include.retraining.drift.statistics import KS_CHANCE_SPREAD, KS_CHANCE_SQUARE, NORMAL_SPREAD

PARTS = 8  # of a window, to count
_BLOCKS = (8, 4)
_MIN_BLOCK_ROWS = 30
_ONE_SIDED = 2.326  # normal quantile, 1 %


class Dependence(NamedTuple):
    """How alike neighbouring rows are: the design effect, read off so many blocks."""

    design_effect: float
    blocks: int


INDEPENDENT = Dependence(1.0, 0)  # rows as good as independent, or blocks that do not tell


def read_dependence(held: NDArray[np.int64]) -> tuple[Dependence, Dependence]:
    """Read off the parts of windows how alike rows are: in distance, and in shift.

    Parameters
    ----------
    held : ndarray of shape (n_windows, PARTS, n_cells)
        How many values of each part, in the order of the rows, lie in each cell.
    """
    reference = held.sum(axis=(0, 1))
    size = reference.sum()
    for blocks in _BLOCKS:
        parts = held.reshape(len(held), blocks, PARTS // blocks, len(reference)).sum(axis=2)
        rows = parts.sum(axis=2)
        kept = (rows >= _MIN_BLOCK_ROWS).all(axis=1)
        if not kept.any():
            continue
        rows = rows[kept]
        others = size - rows
        distances, shifts = apart(reference, parts[kept])
        chance, scale = 1 / rows + 1 / others, others / size  # a block is part of the reference
        if blocks_tell(shifts / chance**0.5):
            untied = 1 - ((reference / size) ** 3).sum()
            return (
                find_dependence(
                    distances / scale, KS_CHANCE_SQUARE * chance, rows, spread=KS_CHANCE_SPREAD
                ),
                find_dependence(shifts / scale, untied / 3 * chance, rows, spread=NORMAL_SPREAD),
            )
    return INDEPENDENT, INDEPENDENT


def blocks_tell(levels: NDArray[np.float64]) -> bool:
    """Say whether blocks are as good as independent of each other, and vary like a normal law.

    Parameters
    ----------
    levels : ndarray of shape (n_windows, n_blocks)
        Of each block, in the order of the rows, in units of what so many rows leave to chance.
    """
    windows, blocks = len(levels), levels.size
    square = float((levels**2).mean())
    if not square:
        return True
    neighbours = float((levels[:, 1:] * levels[:, :-1]).mean()) / square
    kurtosis = float((levels**4).mean()) / square**2
    if neighbours > _ONE_SIDED / (blocks - windows) ** 0.5:
        return False  # a block still tells about the next
    return bool(kurtosis <= 3 + _ONE_SIDED * (24 / blocks) ** 0.5)  # or a few lie far off


def find_dependence(
    distances: NDArray[np.float64],
    chance_squares: NDArray[np.float64],
    rows: NDArray[np.int64],
    *,
    spread: float,
) -> Dependence:
    r"""Read the design effect off blocks that tell.

    Parameters
    ----------
    distances : ndarray of shape (n_windows, n_blocks)
        Of each block from the rest of the reference.
    chance_squares : ndarray of shape (n_windows, n_blocks)
        Mean squared distance of independent rows of these sizes.
    rows : ndarray of shape (n_windows, n_blocks)
        That hold a value.
    spread : float
        Standard deviation of a squared distance by chance, in units of its mean.

    Notes
    -----
    What of the dependence reaches across the ends of a block is missing in it. For correlations
    that fall geometrically with the distance of rows, that is a share of :math:`(g - 1/g) / 2b` of
    the design effect at *b* rows a block, which is added.
    """
    blocks = rows.size
    effect = float((distances**2 / chance_squares).mean()) if chance_squares.all() else 0.0
    if effect <= upper_limit(blocks, spread):
        return INDEPENDENT
    return Dependence(effect * (1 + (effect - 1 / effect) / 2 / float(rows.mean())), blocks)


def apart(
    reference: NDArray[Any], samples: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give distance and shift of samples from a reference, all counted in the same cells.

    Parameters
    ----------
    reference : ndarray of shape (n_cells,)
    samples : ndarray of shape (..., n_cells)
        None of them empty.
    """
    law = np.cumsum(reference) / reference.sum()
    ranks = 2 * law - reference / reference.sum() - 1
    sizes = samples.sum(axis=-1)
    distances = np.abs(np.cumsum(samples, axis=-1) / sizes[..., None] - law).max(axis=-1)
    return distances, (samples * ranks).sum(axis=-1) / sizes


def upper_limit(count: int, spread: float) -> float:
    """Give what the mean of so many squares stays below in 95 %, in units of its expectation."""
    from scipy.special import chdtri

    if not spread:
        return 1.0
    freedom = 2 * count / spread**2  # of the chi-squared law of this mean and spread
    return float(chdtri(freedom, 0.05) / freedom)
