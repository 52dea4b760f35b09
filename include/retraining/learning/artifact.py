"""The bytes of a fitted model, and which of them may be loaded.

An artifact is trusted only if its SHA-256 is the one the registry keeps, and only the types of the
allow-list are built from it. MLflow's own loader takes that list from the artifact itself, so
whoever can change it can extend the list; it is not used.
"""

from __future__ import annotations

import hashlib
from typing import Any

from include.retraining.errors import DataError, ScoringError
from include.retraining.shelf import MODEL_ARTIFACTS
from include.retraining.spec import ModelFormat, ModelSpec

# What an artifact may contain beside numpy, scipy and scikit-learn's plain types. Reviewed one by
# one: each only holds arrays.
TRUSTED_TYPES = (
    "include.retraining.learning.recorded.RecordedPredictions",
    "numpy.dtype",
    "sklearn._loss._loss.CyHalfBinomialLoss",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)


def trusted_types(spec: ModelSpec) -> list[str]:
    """Give the allow-list: ours, and what the model file adds."""
    return [*TRUSTED_TYPES, *spec.training.trusted_types]


def require_keepable(spec: ModelSpec, pipeline: Any) -> None:
    """Refuse a fitted model that could not be loaded again.

    Raises
    ------
    DataError
        skops cannot write it, or it contains types that nobody has reviewed.
    """
    import skops.io

    if spec.training.model_format != "skops":
        return
    trusted = trusted_types(spec)
    try:
        content = skops.io.dumps(pipeline)
        unknown = sorted(set(skops.io.get_untrusted_types(data=content)) - set(trusted))
        if nameless := [name for name in unknown if "<" in name]:
            raise TypeError(f"it holds {', '.join(nameless)}")  # noqa: TRY301 - told below
        if not unknown:
            skops.io.loads(content, trusted=trusted)
    except Exception as error:  # whatever a type that skops does not know makes of it
        raise DataError(
            f"{spec.model}: {spec.training.estimator} cannot be kept as skops: {error}. Leave "
            "functions without a name out of the estimator, or accept arbitrary code in "
            "artifacts with training.model_format: cloudpickle"
        ) from error
    if unknown:
        raise DataError(
            f"{spec.model}: the fitted model contains types that nobody has reviewed: "
            f"{', '.join(unknown)}. Look at what loading them runs, then add them to "
            "training.trusted_types"
        )


def load(
    content: bytes,
    *,
    kind: ModelFormat,
    sha256: str,
    allowed: ModelFormat,
    trusted: tuple[str, ...],
) -> Any:
    """Build the model from its artifact.

    Parameters
    ----------
    content : bytes
        The artifact.
    kind : str
        Its format, as the registry says.
    sha256 : str
        Of the file when it was registered, as the registry says.
    allowed : str
        `training.model_format`: with ``cloudpickle``, files of both formats are loaded.
    trusted : tuple of str
        Types that a skops file may contain.

    Raises
    ------
    ScoringError
        The file is not the one that was registered, of a format that is not allowed, or contains
        types that are not trusted. Nothing of it has run.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ScoringError(
            f"its file {MODEL_ARTIFACTS[kind]} has SHA-256 {found[:12]}..., registered was "
            f"{sha256[:12]}...: it was changed or damaged since, and was not loaded"
        )
    if kind == "cloudpickle":
        if allowed != "cloudpickle":
            raise ScoringError(
                "it is kept as cloudpickle, which runs arbitrary code when loaded, and was not "
                "loaded; allow it with training.model_format: cloudpickle, or retrain"
            )
        import cloudpickle

        return cloudpickle.loads(content)
    import skops.io

    if unknown := sorted(set(skops.io.get_untrusted_types(data=content)) - set(trusted)):
        raise ScoringError(
            f"its file contains types that are not trusted: {', '.join(unknown)}; it was not "
            "loaded. If you know them, add them to training.trusted_types"
        )
    return skops.io.loads(content, trusted=list(trusted))
