"""Estimators and factories that a model file of the tests names."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier


def calibrated_forest(**params: Any) -> CalibratedClassifierCV:
    """Give an estimator whose randomness is one level down."""
    return CalibratedClassifierCV(RandomForestClassifier(n_estimators=3, **params), cv=2)


def impossible(**params: Any) -> BaseEstimator:
    """Raise what no caller can foresee."""
    raise LookupError(f"nothing is there for {params}")


class Unfittable(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Takes its parameters and fails at the data."""

    def fit(self, rows: Any, labels: Any) -> Unfittable:
        raise ValueError("rows of this kind are not for me")

    def predict_proba(self, rows: Any) -> Any:
        raise NotImplementedError


class Broken(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Is fitted without complaint, and predicts nothing."""

    def fit(self, rows: Any, labels: Any) -> Broken:
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, rows: Any) -> Any:
        return np.full((len(rows), 2), np.nan)


class Constant(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Gives one probability, and is a type that no allow-list knows."""

    def fit(self, rows: Any, labels: Any) -> Constant:
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, rows: Any) -> Any:
        return np.tile([0.75, 0.25], (len(rows), 1))


def with_a_lambda() -> Pipeline:
    """Give an estimator that holds a function without a name."""
    steps = FunctionTransformer(lambda rows: rows)
    return make_pipeline(SimpleImputer(), steps, DecisionTreeClassifier(max_depth=3))
