"""Shows a `GateDecision` to people: as Markdown, as the lines of a message, in MLflow."""

from __future__ import annotations

from include.retraining import shelf
from include.retraining.records import Gain, GateDecision, Performance
from include.retraining.registry import server
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.telling.escapes import markdown

SYMBOL = {True: "ok", False: "FAILED"}


def as_markdown(decision: GateDecision) -> str:
    """Give the whole duel: who was like what, and every condition with what was found."""
    verb = "may" if decision.passed else "may not"
    lines = [
        f"### Duel of {markdown(decision.model)}, {markdown(decision.partition)}",
        "",
        f"Gate {decision.mode}: version {decision.candidate_version} **{verb} be promoted**.",
        "",
        "| | candidate | champion | gain |",
        "|---|---|---|---|",
        *(f"| {' | '.join(map(markdown, row))} |" for row in rows(decision)),
    ]
    if decision.checks:
        lines += ["", "| condition | | found |", "|---|---|---|"]
        lines += [
            f"| {markdown(check.name)} | {SYMBOL[check.passed]} | {markdown(check.detail)} |"
            for check in decision.checks
        ]
    return "\n".join(lines) + "\n"


def publish(spec: ModelSpec, settings: Settings, decision: GateDecision, *, run_id: str) -> None:
    """Keep the decision with the candidate's MLflow run and version."""
    number = decision.candidate_version
    metric, traits = spec.gate.metric, decision.candidate_traits
    server.log_to_run(
        settings,
        run_id,
        metrics={
            f"duel.candidate.{metric}": _value(decision.candidate),
            f"duel.champion.{metric}": _value(decision.champion),
            f"duel.gain.{metric}": _value(decision.gain),
            "duel.calibration_error": traits.calibration_error,
            "duel.scoring_ms_per_1000_rows": traits.scoring_ms_per_1000_rows,
        },
        texts={shelf.DUEL_ARTIFACT: as_markdown(decision)},
    )
    tags = {
        "retraining.gate": "passed" if decision.passed else "rejected",
        "retraining.gate_reasons": "; ".join(decision.reasons)[:4000],
    }
    server.set_tags(spec, settings, number, tags)


def as_lines(decision: GateDecision) -> tuple[str, ...]:
    """Give the reasons, then the duel's numbers, candidate against champion, one line each."""
    lines = list(decision.reasons)
    for name, ours, theirs, gain in rows(decision)[1:]:  # the versions are in the title
        values = f"{ours} against {theirs}" if ours and theirs else ours or theirs
        lines.append(f"{name}: {', '.join(filter(None, [values, gain and f'gain {gain}']))}")
    return tuple(lines)


def rows(decision: GateDecision) -> list[tuple[str, str, str, str]]:
    """Give what was measured: name, candidate, champion, gain; empty where there is nothing."""
    ours, theirs = decision.candidate_traits, decision.champion_traits
    champion = decision.champion_version
    found = [
        (
            "version",
            str(decision.candidate_version),
            "none" if champion is None else str(champion),
            "",
        )
    ]
    if decision.candidate is not None:
        found.append(
            (
                f"{decision.candidate.metric} on {decision.candidate.rows:,} rows",
                _performance(decision.candidate),
                _performance(decision.champion),
                _gain(decision.gain),
            )
        )
    if decision.delong is not None:
        found.append(("the same by DeLong", "", "", _gain(decision.delong)))
    found += [
        (f"{name} ({gain.rows:,} rows)", "", "", _gain(gain))
        for name, gain in decision.slices.items()
    ]
    for name, field, form in (
        ("calibration error", "calibration_error", "{:.4f}"),
        ("ms per 1,000 rows", "scoring_ms_per_1000_rows", "{:.1f}"),
        ("size in bytes", "size_bytes", "{:,}"),
    ):
        pair = [getattr(traits, field) if traits else None for traits in (ours, theirs)]
        if pair != [None, None]:
            one, other = ("" if value is None else form.format(value) for value in pair)
            found.append((name, one, other, ""))
    return found


def _performance(found: Performance | None) -> str:
    return "" if found is None else f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})"


def _gain(found: Gain | None) -> str:
    return "" if found is None else f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


def _value(found: Performance | Gain | None) -> float | None:
    return None if found is None else found.value
