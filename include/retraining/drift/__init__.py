"""Is this batch out of the ordinary for its model? Importing this package costs nothing.

The public names are loaded on first use, because DAG files import this package and must not pay for
numpy, scipy and pyarrow. The path of a check::

    ReferenceProfile.build(history windows)           once per promotion (profile.py, with
    calibration.py)
        -> measure_columns(profile, current window)   one FeatureDrift per column (measure.py)
        -> verdict                                    from a DriftReport (verdict.py)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from include.retraining.drift.measure import measure_columns, overall_state
    from include.retraining.drift.profile import ReferenceProfile
    from include.retraining.drift.statistics import ks_distance

__all__ = ["ReferenceProfile", "ks_distance", "measure_columns", "overall_state"]

_HOMES = {
    "ReferenceProfile": "profile",
    "ks_distance": "statistics",
    "measure_columns": "measure",
    "overall_state": "measure",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
