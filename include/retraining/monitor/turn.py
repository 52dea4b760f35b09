"""Says whether it is a batch's turn to be judged: what is decided follows the order of the data.

Batches are ingested side by side, and whichever comes first must not change what is decided. So a
batch waits for those before it that are on their way, and for the retrain or rollback that one of
them asked for. It waits for nothing that will not come: files that have not landed, a batch that
was refused, a run that has failed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from include.retraining import shelf
from include.retraining.data.delivery import awaited_keys
from include.retraining.data.outcomes import is_settled, outcomes_of
from include.retraining.names import dag_id
from include.retraining.records import (
    BatchRef,
    GateDecision,
    ValidationReport,
    Verdict,
)
from include.retraining.registry import ledger
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

LOOK_BACK = 64

RunState: TypeAlias = Literal["active", "failed", "done"] | None
StateOf: TypeAlias = Callable[[str, str], RunState]


class Wait(NamedTuple):
    """What a batch waits for.

    `ahead` is how many batches are to be judged before it. `is_certain`: a run that is known to be
    active will end it; else the wait has to be bounded by who waits.
    """

    why: str
    ahead: int
    is_certain: bool


def waits_for(
    spec: ModelSpec,
    storage: Storage,
    batch: BatchRef,
    *,
    state_of: StateOf,
    is_ingesting: Callable[[], bool],
) -> Wait | None:
    """Give what a batch has to wait for before it is measured; None if it is its turn.

    Looks back until the newest batch that was judged, at most over `LOOK_BACK` partitions.

    Parameters
    ----------
    state_of : callable
        Gives the state of a run, by its DAG's id and its own; None where there is none.
    is_ingesting : callable
        Says whether any other run of the model's ingest is on its way.
    """
    ahead, first, start = 0, None, batch.start
    for _ in range(LOOK_BACK):
        start = spec.partitions.step(start, -1)
        if start < spec.partitions.first:
            break
        one = spec.batch_ref(spec.partition_key(start))
        verdict = shelf.find(storage, Verdict, spec.model, one.partition)
        if verdict is not None and not _is_to_be_settled(spec, storage, verdict):
            move = _move_to_come(spec, storage, verdict, state_of)
            if move is not None:
                return move._replace(ahead=ahead + 1)
            break
        found = _on_its_way(spec, storage, one, state_of=state_of, is_ingesting=is_ingesting)
        if found is not None:
            ahead, first = ahead + 1, found
    if first is None:
        return None
    return Wait(first.why, ahead, is_certain=first.is_certain)


def _is_to_be_settled(spec: ModelSpec, storage: Storage, verdict: Verdict) -> bool:
    """Is it judged again as soon as its monitor comes to it, since its outcomes are there now?"""
    return verdict.awaits_outcomes and is_settled(outcomes_of(spec, storage), verdict.batch)


def _on_its_way(
    spec: ModelSpec,
    storage: Storage,
    batch: BatchRef,
    *,
    state_of: StateOf,
    is_ingesting: Callable[[], bool],
) -> Wait | None:
    """Give the wait for a batch that has not been judged; None if nothing will judge it now."""
    partition = batch.partition
    for stage in ("monitor", "ingest"):
        run = shelf.find_run(storage, spec.model, partition, stage)
        state = state_of(dag_id(spec.model, stage), run.run_id) if run else None
        if state == "failed":
            return None
        if state == "active":
            return Wait(f"waits for {partition}, which comes first", 1, is_certain=True)
    report = shelf.find(storage, ValidationReport, spec.model, partition)
    if report is None:
        landed = all(storage.exists(key) for key in awaited_keys(spec, partition))
        if not (landed and is_ingesting()):
            return None
    elif report.status == "refused":
        return None
    return Wait(f"waits for {partition}, which has landed and comes first", 1, is_certain=False)


def _move_to_come(
    spec: ModelSpec, storage: Storage, verdict: Verdict, state_of: StateOf
) -> Wait | None:
    """Give the wait for what comes of a verdict that asked for a retrain or a rollback; None: done.

    Where a person decides, that is the question: the answer may take days.
    """
    if verdict.outcome == "retrain":
        stage: Literal["retrain", "guard"] = "retrain"
    elif verdict.outcome == "rollback" and spec.guard_mode == "rollback":
        stage = "guard"
    else:
        return None
    state = state_of(dag_id(spec.model, stage), verdict.incident_id)
    if state in {"failed", "done"}:
        return None
    if stage == "retrain":
        decision = shelf.find(storage, GateDecision, spec.model, verdict.incident_id)
        if decision is not None:
            if not decision.passed or spec.retrain.autonomy < 3:
                return None
            if ledger.made(storage, spec.model, verdict.incident_id, "promotion") is not None:
                return None
    elif ledger.made(storage, spec.model, verdict.incident_id, "rollback") is not None:
        return None
    noun = "rollback" if stage == "guard" else "retrain"
    why = f"waits for the {noun} that {verdict.batch.partition} asked for"
    return Wait(why, 1, is_certain=state == "active")  # it may be about to be requested
