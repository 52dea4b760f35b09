"""Makes a `Reproduction`: trains a registered version again and says whether it comes out the same.

It uses what the retrain kept: its rows, and the model file as it was then. What is installed is
what is installed now.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from include.retraining import shelf
from include.retraining.errors import DataError, RegistryError, ScoringError
from include.retraining.learning import estimator, scoring
from include.retraining.records import Record, TrainingSet
from include.retraining.registry import versions
from include.retraining.retrain import candidate
from include.retraining.retrain.training_set import LABEL, digest_of, duel_rows, training_rows
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage


class Reproduction(Record):
    """A version trained again: is it the same, what is not, and what else changed since."""

    model: str
    version: int
    registered_digest: str
    digest: str | None
    differences: tuple[str, ...]
    changed_since: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Are the rows unchanged, and all predictions the same to 9 decimals?"""
        return not self.differences


def reproduce(
    spec: ModelSpec,
    settings: Settings,
    number: int,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> Reproduction:
    """Train a version again from what its retrain kept, and compare.

    Parameters
    ----------
    spec : ModelSpec
        The model file as it is now; training follows the one of then.
    number : int
        The version.
    tell : callable
        Is given one line for each of the four steps.

    Raises
    ------
    RegistryError
        There is no such version, or no retrain of ours registered it.
    DataError
        What the retrain kept is gone, or cannot be read by this release.
    """
    tell(f"[1/4] what {spec.model} version {number} was made of")
    found = versions.version(spec, settings, number)
    storage = Storage.of(settings)
    kept = shelf.find(storage, TrainingSet, spec.model, found.incident_id)
    if not found.digest or kept is None:
        raise RegistryError(
            f"{spec.model} version {number} cannot be reproduced: no digest or no training set of "
            "a retrain is kept for it"
        )
    if kept.adopted_from:
        raise RegistryError(
            f"{spec.model} version {number} was adopted from {kept.adopted_from}: others trained "
            "it, and what they did is not known here"
        )
    tags = versions.run_data(settings, found).tags
    then = _spec_of(settings, found)
    changed = _changed_settings(then, spec) + _changed_packages(
        _artifact(settings, found, shelf.ENVIRONMENT_ARTIFACT)
    )
    commit, now = tags.get("retraining.git_commit", ""), candidate.git_commit(settings)
    if commit != now:
        changed.append(f"commit: {commit[:12]} then, {now[:12]} now")

    tell(f"[2/4] its {kept.training_rows:,} + {kept.duel_rows:,} rows")
    differences = []
    logged, held = tags.get("retraining.data_sha256", ""), digest_of(then, storage, kept)
    if held != logged:
        differences.append(
            f"rows: version {kept.table_version} of {storage.url_of(shelf.joined_key(spec.model))} "
            f"has SHA-256 {held[:12]}..., logged was {logged[:12]}...: its files were changed since"
        )

    tell(f"[3/4] training {then.training.estimator}")
    rows = training_rows(spec, storage, kept)
    labels = rows.column(LABEL).to_numpy()
    labelled, labels = rows.filter(pa.array(~np.isnan(labels))), labels[~np.isnan(labels)]
    if then.training.search:
        pipeline = estimator.fit(then, labelled, labels).pipeline
    else:
        pipeline = estimator.fit_once(then, labelled, labels)

    tell("[4/4] comparing predictions")
    duel = duel_rows(spec, storage, kept)
    scores = scoring.predict(then, pipeline, duel)
    digest = candidate.digest(scores)
    if digest != found.digest:
        differences.append(_difference(then, settings, number, duel, scores))
    return Reproduction(
        model=spec.model,
        version=number,
        registered_digest=found.digest,
        digest=digest,
        differences=tuple(differences),
        changed_since=tuple(changed),
    )


def render(found: Reproduction) -> str:
    """Give the result as text."""
    lines = [f"registered {found.registered_digest}", f"again      {found.digest}"]
    if found.equal:
        lines.append(f"equal: {found.model} version {found.version} is reproduced")
    else:
        lines.append(f"different: {found.model} version {found.version} is not reproduced")
        lines += [f"  {difference}" for difference in found.differences]
    if found.changed_since:
        lines.append("changed since:")
        lines += [f"  {change}" for change in found.changed_since]
    return "\n".join(lines)


def _difference(
    spec: ModelSpec, settings: Settings, number: int, duel: pa.Table, scores: Any
) -> str:
    try:
        registered = versions.score(spec, settings, number, duel)
    except ScoringError as error:
        return f"predictions: another digest, and {error}"
    gap = np.abs(registered - scores)
    unequal = int((gap > 1e-9).reshape(len(gap), -1).any(axis=1).sum())
    if not unequal:
        return "digest: the registered model does not have the registered digest; its tag changed"
    return (
        f"predictions: {unequal} of {len(gap)} rows differ, by up to {gap.max():.3g}; look at what "
        "changed since, or for randomness without a seed"
    )


def _spec_of(settings: Settings, found: versions.Version) -> ModelSpec:
    text = _artifact(settings, found, shelf.SPEC_ARTIFACT)
    try:
        return ModelSpec.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(
            f"the model file of version {found.number} cannot be read by this release: {place}: "
            f"{first['msg']}; check out the commit it was trained with"
        ) from error


def _artifact(settings: Settings, found: versions.Version, name: str) -> str:
    try:
        return versions.run_artifact(settings, found, name).decode()
    except RegistryError as error:
        raise DataError(
            f"{error}; without it version {found.number} cannot be reproduced"
        ) from error


def _changed_settings(then: ModelSpec, now: ModelSpec) -> list[str]:
    before, after = (_flat(spec.model_dump(mode="json")) for spec in (then, now))
    return [
        f"{name}: {json.dumps(before.get(name))} then, {json.dumps(after.get(name))} now"
        for name in sorted(before | after)
        if before.get(name) != after.get(name)
    ]


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _changed_packages(then: str) -> list[str]:
    before, after = (
        dict(line.split("==", 1) for line in lines if "==" in line)
        for lines in (then.splitlines(), candidate.environment())
    )
    return [
        f"{name}: {before.get(name, 'not installed')} then, {after.get(name, 'not installed')} now"
        for name in sorted(before | after)
        if before.get(name) != after.get(name)
    ]
