"""The gate's rules, `policies` in a model file: what holds whatever the metrics say."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from include.retraining.drift.measure import measure_columns
from include.retraining.drift.profile import ReferenceProfile
from include.retraining.records import GateCheck, RetrainRequest, TrainingSet
from include.retraining.retrain.training_set import duel_rows, training_rows
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage


def check_rules(
    spec: ModelSpec,
    storage: Storage,
    request: RetrainRequest,
    training_set: TrainingSet,
    *,
    features: Sequence[str],
    judged_slices: Sequence[str] | None,
) -> tuple[GateCheck, ...]:
    """Give one check per rule that the model file sets, in the file's order.

    Parameters
    ----------
    features : sequence of str
        That the candidate was trained with.
    judged_slices : sequence of str or None
        Slices that were compared with the champion's; None for the first model, which has no
        comparison and so breaks no rule about one.
    """
    rules, checks = spec.policies, []

    def add(name: str, *, passed: bool, detail: str) -> None:
        check = GateCheck(name=f"policies.{name}", passed=passed, detail=detail, binding=True)
        checks.append(check)

    if rules.forbidden_features:
        used = ", ".join(sorted(set(features) & set(rules.forbidden_features)))
        add(
            "forbidden_features",
            passed=not used,
            detail=f"the candidate uses {used}; take it out of the features and retrain"
            if used
            else f"none of {', '.join(rules.forbidden_features)} is used",
        )
    if rules.max_data_age_days is not None:
        age = (request.batch.end - training_set.training_end) / dt.timedelta(days=1)
        add(
            "max_data_age_days",
            passed=age <= rules.max_data_age_days,
            detail=f"the training data ended {age:g} days before the batch did, allowed are "
            f"{rules.max_data_age_days:g}",
        )
    if rules.min_training_rows is not None:
        rows = training_set.training_rows
        add(
            "min_training_rows",
            passed=rows >= rules.min_training_rows,
            detail=f"{rows:,} labelled rows, asked for are {rules.min_training_rows:,}",
        )
    if rules.max_duel_distance is not None:
        passed, detail = _distances(spec, storage, training_set, rules.max_duel_distance)
        add("max_duel_distance", passed=passed, detail=detail)
    if rules.required_slices and judged_slices is not None:
        absent = [name for name in rules.required_slices if name not in judged_slices]
        add(
            "required_slices",
            passed=not absent,
            detail=f"not judged: {', '.join(absent)}; each needs gate.min_slice_rows "
            f"({spec.gate.min_slice_rows}) labelled rows with both classes in the duel window"
            if absent
            else f"judged: {', '.join(rules.required_slices)}",
        )
    return tuple(checks)


def _distances(
    spec: ModelSpec, storage: Storage, training_set: TrainingSet, limit: float
) -> tuple[bool, str]:
    """Hold the duel window against the training data; a feature nobody can measure breaks it."""
    names = [name for name in spec.features.names if name not in spec.drift.expected]
    training = training_rows(spec, storage, training_set, names)
    duel = duel_rows(spec, storage, training_set)
    profile = ReferenceProfile.build(
        [training],
        numeric=[name for name in names if name in spec.features.numeric],
        categorical=[name for name in names if name in spec.features.categorical],
    )
    measured = measure_columns(profile, duel, settings=spec.drift)
    unknown = [feature.name for feature in measured if feature.distance is None]
    far = {
        feature.name: feature.distance
        for feature in measured
        if feature.distance is not None and feature.distance > limit
    }
    largest = max((feature.distance or 0.0 for feature in measured), default=0.0)
    parts = [f"{name} {distance:.3f}" for name, distance in far.items()]
    parts += [f"{name} cannot be measured" for name in unknown]
    if parts:
        return False, (
            f"between training data and duel window: {', '.join(parts)}, allowed are {limit:g}; "
            "what drifts by construction belongs in drift.expected"
        )
    return True, f"the largest distance is {largest:.3f}, allowed are {limit:g}"
