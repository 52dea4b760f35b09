"""Makes a `GateDecision`: both models score the same later rows, and the candidate has to win.

Whatever cannot be measured fails the gate: a champion that cannot be scored stays in production.
"""

from __future__ import annotations

import pyarrow as pa

from include.retraining import feedback, metrics, registry
from include.retraining.errors import DataError, ScoringError
from include.retraining.names import incident_key
from include.retraining.records import Candidate, GateDecision, Performance, RetrainRequest
from include.retraining.settings import Settings
from include.retraining.spec import Gate, ModelSpec
from include.retraining.storage import Storage
from include.retraining.training import LABEL


def run_duel(
    spec: ModelSpec, settings: Settings, request: RetrainRequest, candidate: Candidate
) -> GateDecision:
    """Let the candidate meet the champion on rows neither was trained on; the gate decides.

    Raises
    ------
    DataError
        The window holds too few rows or one class: nothing can be said about the candidate.
    """
    storage = Storage.of(settings)
    rows = storage.read_table(candidate.training_set.duel_key)
    known = rows.column(LABEL).to_numpy()
    scores = feedback.score(spec, settings, candidate.version, rows)
    own = feedback.performance(spec, known, scores)
    if own is None:
        raise DataError(
            f"the duel window [{candidate.training_set.duel_start:%Y-%m-%d}, "
            f"{candidate.training_set.duel_end:%Y-%m-%d}) has {len(known)} labelled rows; it needs "
            f"{spec.gate.min_rows} with both classes. The champion stays; retrain once more has "
            "landed"
        )
    champion = (
        None
        if request.champion_version is None
        else registry.version(spec, settings, request.champion_version)
    )
    theirs: Performance | None = None
    gain: tuple[float, float, float] | None = None
    slices: dict[str, float] = {}
    trouble = ""
    if champion is not None:
        try:
            if (
                champion.trained_until
                and champion.trained_until > candidate.training_set.duel_start
            ):
                raise ScoringError(  # noqa: TRY301 - fails the gate like any other failed scoring
                    f"it was trained on rows up to {champion.trained_until:%Y-%m-%d}, inside the "
                    "duel window"
                )
            their_scores = feedback.score(spec, settings, champion.number, rows)
            theirs = feedback.performance(spec, known, their_scores)
            gain = metrics.paired_gain(
                spec.gate.metric,
                known,
                scores,
                their_scores,
                confidence=spec.gate.confidence,
                seed=spec.training.seed,
            )
            slices = _slice_gains(spec, rows, known, scores, their_scores)
        except ScoringError as error:
            trouble = f"the champion, version {champion.number}, cannot be compared: {error}"
    passed, reasons = decide(
        spec.gate, own, gain=gain, slices=slices, first=champion is None, trouble=trouble
    )
    decision = GateDecision(
        incident_id=request.incident_id,
        model=spec.model,
        partition=request.batch.partition,
        candidate_version=candidate.version,
        champion_version=request.champion_version,
        passed=passed,
        reasons=reasons,
        candidate=own,
        champion=theirs,
        gain=gain[0] if gain else None,
        gain_low=gain[1] if gain else None,
        gain_high=gain[2] if gain else None,
        slices=slices,
    )
    storage.write_json(f"{incident_key(spec.model, request.incident_id)}/gate.json", decision)
    _log(spec, settings, candidate, decision)
    return decision


def decide(
    gate: Gate,
    candidate: Performance,
    *,
    gain: tuple[float, float, float] | None,
    slices: dict[str, float],
    first: bool,
    trouble: str = "",
) -> tuple[bool, tuple[str, ...]]:
    """Say whether a candidate may replace the champion, and why.

    Parameters
    ----------
    gate : Gate
        The conditions of the model file.
    candidate : Performance
        Of the candidate on the duel's rows.
    gain : tuple of float or None
        Candidate minus champion, and the ends of its interval; None where there is nothing to
        compare with.
    slices : dict of str to float
        Gain of each slice that is large enough.
    first : bool
        There is no champion yet: only the floor counts.
    trouble : str
        Why the champion could not be scored.

    Returns
    -------
    bool, tuple of str
        Every condition that failed; where none did, what made it pass.
    """
    name = candidate.metric
    broken = []
    if not candidate.value >= gate.floor:
        broken.append(f"{name} {candidate.value:.3f} is below the floor {gate.floor:.3f}")
    if trouble:
        broken.append(trouble)
    elif gain is None and not first:
        broken.append("there is a champion, but no comparison with it")
    elif gain is not None:
        value, low, high = gain
        interval = f"{gate.confidence:.0%} interval {low:+.4f} to {high:+.4f}"
        if not value > gate.min_gain:
            broken.append(f"{name} gain {value:+.4f} is not above {gate.min_gain:.4f} ({interval})")
        elif not low > 0:
            broken.append(f"{name} gain {value:+.4f} could be chance ({interval})")
    broken += [
        f"{name} on {where} changes by {change:+.4f}, worse than -{gate.max_slice_loss:.4f}"
        for where, change in slices.items()
        if not change >= -gate.max_slice_loss
    ]
    if broken:
        return False, tuple(broken)
    if gain is None:
        return True, (
            f"first model: {name} {candidate.value:.3f} reaches the floor {gate.floor:.3f}",
        )
    return True, (
        (
            f"{name} {candidate.value:.3f}, {gain[0]:+.4f} on the champion ({gate.confidence:.0%} "
            f"interval {gain[1]:+.4f} to {gain[2]:+.4f}, {candidate.rows} rows)"
        ),
    )


def _slice_gains(
    spec: ModelSpec,
    rows: pa.Table,
    known: metrics.Floats,
    candidate: metrics.Floats,
    champion: metrics.Floats,
) -> dict[str, float]:
    gains = {}
    for column in spec.gate.slices:
        values = rows.column(column).to_pandas()
        for level in sorted(values.dropna().unique()):
            inside = (values == level).to_numpy()
            if inside.sum() < spec.gate.min_slice_rows or len(set(known[inside])) < 2:
                continue
            ours = metrics.value(spec.gate.metric, known[inside], candidate[inside])
            theirs = metrics.value(spec.gate.metric, known[inside], champion[inside])
            gains[f"{column}={level}"] = ours - theirs
    return gains


def _log(spec: ModelSpec, settings: Settings, candidate: Candidate, decision: GateDecision) -> None:
    """Keep the decision with the candidate's MLflow run and version."""
    api = registry.client(settings)
    found = {"duel.candidate": decision.candidate.value, "duel.gain": decision.gain}
    if decision.champion:
        found["duel.champion"] = decision.champion.value
    for name, number in found.items():
        if number is not None:
            api.log_metric(candidate.run_id, f"{name}.{spec.gate.metric}", number)
    outcome = "passed" if decision.passed else "rejected"
    api.set_model_version_tag(spec.model, str(candidate.version), "retraining.gate", outcome)
    reasons = "; ".join(decision.reasons)[:4000]
    api.set_model_version_tag(
        spec.model, str(candidate.version), "retraining.gate_reasons", reasons
    )
    champion = registry.champion(spec, settings)
    if (
        champion is None or champion.number != candidate.version
    ):  # not when a finished retrain is run again
        stage = "Staging" if decision.passed else "Archived"
        registry.set_stage(spec, settings, candidate.version, stage)
