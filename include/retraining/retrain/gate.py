"""Makes a `GateDecision`: both models score the same later rows, and the candidate has to win.

Every condition is a `GateCheck`, with what was found. Whatever cannot be measured fails the gate: a
champion that cannot be scored stays in production.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from include.retraining import shelf
from include.retraining.records import (
    Candidate,
    Gain,
    GateCheck,
    GateDecision,
    RetrainRequest,
)
from include.retraining.registry import identity, ledger, server, versions
from include.retraining.retrain.duel import Comparison, Duel, compare
from include.retraining.retrain.gate_rules import check_rules
from include.retraining.settings import Settings
from include.retraining.spec import Gate, ModelSpec
from include.retraining.storage import Storage


def decide(
    spec: ModelSpec, settings: Settings, request: RetrainRequest, candidate: Candidate
) -> GateDecision:
    """Let the candidate meet the champion on rows neither was trained on; the gate decides.

    What a promotion was made on is not decided again.
    """
    storage = Storage.of(settings)
    done = shelf.find(storage, GateDecision, spec.model, request.incident_id)
    if done is not None and ledger.made(storage, spec.model, request.incident_id, "promotion"):
        return done
    duel = compare(spec, settings, request, candidate)
    version = versions.version(spec, settings, candidate.version)
    identity.require_made_by(spec, version, request.incident_id)
    opponent = duel.champion
    slices = opponent.slices if opponent else {}
    is_unopposed = request.champion_version is None or bool(opponent and opponent.is_waived)
    checks = (
        *check_duel(spec.gate, duel),
        *check_rules(
            spec,
            storage,
            request,
            candidate.training_set,
            features=version.features,
            judged_slices=None if is_unopposed else list(slices),
        ),
    )
    passed, reasons = conclude(spec.gate, checks, duel)
    if passed and spec.is_served_elsewhere:
        reasons = (_reference(duel),)
    champion = duel.champion
    decision = GateDecision(
        incident_id=request.incident_id,
        model=spec.model,
        partition=request.batch.partition,
        candidate_version=candidate.version,
        champion_version=request.champion_version,
        champion_incident=champion.incident_id if champion else None,
        mode=spec.gate.mode,
        passed=passed,
        reasons=reasons,
        checks=checks,
        candidate=duel.candidate,
        champion=champion.performance if champion else None,
        gain=champion.gain if champion else None,
        delong=champion.delong if champion else None,
        slices=slices,
        candidate_traits=duel.traits,
        champion_traits=champion.traits if champion else None,
    )
    shelf.keep(storage, decision)
    _stage(spec, settings, decision)
    return decision


def check_duel(gate: Gate, duel: Duel) -> tuple[GateCheck, ...]:
    """Hold a duel against the conditions of the model file.

    Returns
    -------
    tuple of GateCheck
        Every condition that applies, in the order they are told; none where the gate is disabled
        and the candidate can score.
    """
    return tuple(_checks(gate, duel))


def passes(gate: Gate, duel: Duel) -> bool:
    """Say whether the gate lets a candidate through that no rule stops."""
    return conclude(gate, check_duel(gate, duel), duel)[0]


def _checks(gate: Gate, duel: Duel) -> Iterator[GateCheck]:
    if duel.unscorable:  # such a version must never be promoted, whatever the mode
        yield GateCheck(name="candidate", passed=False, detail=duel.unscorable, binding=True)
        return
    if gate.mode == "disabled":
        return
    own = duel.candidate
    if own is None:
        yield GateCheck(name="window", passed=False, detail=duel.window_trouble)
        return
    reaches = own.value >= gate.floor
    yield GateCheck(
        name="floor",
        passed=reaches,
        detail=f"{own.metric} {own.value:.3f} {'reaches' if reaches else 'is below'} the floor "
        f"{gate.floor:.3f}",
    )
    yield _leakage("the candidate", duel.leaked_rows)
    if duel.champion is not None:
        yield from _comparison(gate, own.metric, duel.champion, "champion")
        yield from _slices(gate, own.metric, duel.champion.slices)
    if duel.rolled_back is not None:
        yield from _comparison(gate, own.metric, duel.rolled_back, "rolled-back version")
    if duel.gated is not None:
        yield from _comparison(gate, own.metric, duel.gated, "last champion that passed a gate")


def _comparison(gate: Gate, metric: str, comparison: Comparison, who: str) -> Iterator[GateCheck]:
    """Ask for a win that is larger than the margin, and more than chance."""
    whom = f"the {who}, version {comparison.version}"
    if comparison.is_waived:
        yield GateCheck(
            name=who,
            passed=True,
            detail=f"{whom}, is no opponent of this retrain, which was forced: "
            f"{comparison.trouble}",
        )
        return
    if comparison.trouble or comparison.gain is None:
        trouble = comparison.trouble or "the gain has no interval on these rows"
        yield GateCheck(name=who, passed=False, detail=f"{whom}, cannot be compared: {trouble}")
        return
    yield _leakage(whom, comparison.leaked_rows)
    value = comparison.gain.value
    told = f"{metric} gain {value:+.4f} on {whom}"
    interval = _interval(gate, comparison.gain)
    enough = value > gate.min_gain
    yield GateCheck(
        name=f"gain on the {who}",
        passed=enough,
        detail=f"{told}, {'is' if enough else 'is not'} above {gate.min_gain:.4f} ({interval})",
    )
    certain = comparison.gain.low > 0
    yield GateCheck(
        name=f"chance, {who}",
        passed=certain,
        detail=f"{told}, {'is more than' if certain else 'could be'} chance ({interval})",
    )
    if comparison.delong is not None:
        agrees = comparison.delong.low > 0
        yield GateCheck(
            name=f"DeLong, {who}",
            passed=agrees,
            detail=f"{told}, {'is more than' if agrees else 'could be'} chance by DeLong's method "
            f"({_interval(gate, comparison.delong)})",
        )


def _slices(gate: Gate, metric: str, slices: dict[str, Gain]) -> Iterator[GateCheck]:
    """Non-inferiority: each slice has to show that it loses no more than allowed."""
    for where, gain in slices.items():
        holds = gain.low >= -gate.max_slice_loss
        yield GateCheck(
            name=f"slice {where}",
            passed=holds,
            detail=f"{metric} on {where} changes by {gain.value:+.4f} "
            f"({_interval(gate, gain)}), {'not' if holds else 'may be'} worse than "
            f"-{gate.max_slice_loss:.4f}",
        )


def _leakage(who: str, leaked: int | None) -> GateCheck:
    known = "no row of the duel window" if leaked == 0 else f"{leaked or 0:,} rows of the duel"
    if leaked is None:
        known = "its training set is gone; by its time span, no row of the duel window"
    return GateCheck(
        name=f"leakage, {who}",
        passed=not leaked,
        detail=f"{who} was trained on: {known}"
        + ("; retrain on a later batch, by hand with force" if leaked else ""),
    )


def _interval(gate: Gate, gain: Gain) -> str:
    return f"{gate.confidence:.0%} interval {gain.low:+.4f} to {gain.high:+.4f}"


def conclude(gate: Gate, checks: Sequence[GateCheck], duel: Duel) -> tuple[bool, tuple[str, ...]]:
    """Say whether a candidate may replace the champion, and why.

    Parameters
    ----------
    gate : Gate
        Its `mode` says which checks count: all, or those that are binding.
    checks : sequence of GateCheck
        Of the duel and of the rules.
    duel : Duel
        For the words of a win.

    Returns
    -------
    bool, tuple of str
        Every condition that failed; where none did, what made it pass.
    """
    broken = [check for check in checks if not check.passed]
    if [check for check in broken if check.binding or gate.mode == "enabled"]:
        return False, tuple(check.detail for check in broken)
    return True, (
        _win(gate, duel),
        *(f"would have been rejected: {check.detail}" for check in broken),
    )


def _reference(duel: Duel) -> str:
    start = "the reference of a model that is served elsewhere, no duel is held: "
    own = duel.candidate
    if own is None:
        return f"{start}nothing is promised, {duel.window_trouble}"
    return f"{start}{own.metric} {own.value:.3f} on {own.rows:,} rows"


def _win(gate: Gate, duel: Duel) -> str:
    if gate.mode == "disabled":
        return "gate.mode is disabled: no duel was held"
    start = "gate.mode is dry_run: " if gate.mode == "dry_run" else ""
    own = duel.candidate
    if own is None:
        return f"{start}the candidate was not measured"
    gain = duel.champion.gain if duel.champion else None
    if duel.champion is not None and duel.champion.is_waived:
        return (
            f"{start}no duel: nothing here can score the champion, version "
            f"{duel.champion.version}, any more, and the retrain was forced; {own.metric} "
            f"{own.value:.3f}, floor {gate.floor:.3f}"
        )
    if gain is None:
        return f"{start}no champion to beat: {own.metric} {own.value:.3f}, floor {gate.floor:.3f}"
    return (
        f"{start}{own.metric} {own.value:.3f}, {gain.value:+.4f} on the champion "
        f"({_interval(gate, gain)}, {own.rows:,} rows)"
    )


@server.writing("the duel")
def _stage(spec: ModelSpec, settings: Settings, decision: GateDecision) -> None:
    """Make the candidate's stage follow the decision."""
    champion = versions.champion(spec, settings)
    number = decision.candidate_version
    # not when a finished retrain is run again
    if champion is None or champion.number != number:
        server.set_stage(spec, settings, number, "Staging" if decision.passed else "Archived")
