"""Samples of numbers brought to types in which no two different values become equal.

float64 wherever it is exact; int64 where whole numbers lie beyond 2**53.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_EXACT_FLOAT = 2**53  # whole numbers up to here are exact in float64


def settle(values: NDArray[Any]) -> NDArray[Any]:
    """Bring numbers of any type to float64 or int64."""
    if (
        values.dtype == np.uint64
    ):  # beyond 2**63 nothing counts rows or names things: rounding is fine
        values = values.astype(np.int64 if not len(values) or values.max() < 2**63 else np.float64)
    return comparable(values, values)[0]


def ordered(values: NDArray[Any]) -> NDArray[Any]:
    """Sort settled numbers in place; leave out NaN."""
    values.sort()
    if values.dtype.kind == "f":
        return values[: np.searchsorted(values, np.nan)]  # NaN sorts last
    return values


def union(samples: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Sort several samples into one, of a type in which no two different values become equal."""
    filled = [sample for sample in samples if len(sample)]
    if not filled:
        return np.empty(0)
    kinds = {sample.dtype for sample in filled}
    if len(kinds) > 1:  # some beyond 2**53, some not: integers if all are whole, else as float64
        whole = [_as_whole(sample) for sample in filled]
        filled = [s for s in whole if s is not None]
        if len(filled) < len(whole):
            filled = [sample.astype(np.float64) for sample in samples if len(sample)]
    return np.sort(np.concatenate(filled))


def same_type(reference: NDArray[Any], current: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Bring two sorted samples to one type; order, and so sortedness, is kept."""
    if reference.dtype == current.dtype:
        return reference, current
    whole = _as_whole(reference), _as_whole(current)
    if whole[0] is not None and whole[1] is not None:
        return whole[0], whole[1]
    return comparable(reference, current)


def comparable(reference: NDArray[Any], current: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Bring two samples to one type.

    Whole numbers beyond 2**53 stay whole against whole numbers; against fractions they become the
    platform's longest float (exact on Linux).
    """
    if reference.dtype.kind in "mM" or current.dtype.kind in "mM":
        common = np.promote_types(reference.dtype, current.dtype)
        return reference.astype(common).view(np.int64), current.astype(common).view(np.int64)
    if _fits_float(reference) and _fits_float(current):
        return reference.astype(np.float64, copy=False), current.astype(np.float64, copy=False)
    common = np.promote_types(reference.dtype, current.dtype)
    if common.kind not in "iu":
        common = np.dtype(np.longdouble)
    return reference.astype(common, copy=False), current.astype(common, copy=False)


def _as_whole(values: NDArray[Any]) -> NDArray[np.int64] | None:
    if values.dtype.kind == "i":
        return values.astype(np.int64, copy=False)
    inside = len(values) == 0 or (values[0] >= -(2**63) and values[-1] < 2**63)
    if values.dtype.kind != "f" or not inside or not bool(np.all(values == np.floor(values))):
        return None
    return values.astype(np.int64)


def _fits_float(values: NDArray[Any]) -> bool:
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8 or not len(values):
        return values.dtype != np.longdouble
    return bool(values.max() <= _EXACT_FLOAT and values.min() >= -_EXACT_FLOAT)
