"""What the demo came to, per week and in total: stored records, and Airflow's own task times."""

from __future__ import annotations

import datetime as dt
import statistics
from typing import TYPE_CHECKING, Any, NamedTuple

from include.retraining import shelf
from include.retraining.names import dag_id
from include.retraining.records import BatchRef, GateDecision, ValidationReport, Verdict
from include.retraining.registry import ledger
from include.retraining.replay.rehearse import value_of
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

if TYPE_CHECKING:
    from include.demo.stack import Stack

PROMISED_VERDICT_S = 300
PROMISED_PROMOTION_S = 900
PROMISED_ROLLBACK_S = 30


class Timeline(NamedTuple):
    """Seconds from the landing of each week to its verdict and to the promotion that followed."""

    to_verdict: dict[str, float]
    to_promotion: dict[str, float]

    @classmethod
    def read(cls, stack: Stack, spec: ModelSpec, landed_at: dict[str, float]) -> Timeline:
        """Take the ends of the tasks from Airflow."""
        verdicts = _task_ends(stack, dag_id(spec.model, "monitor"), "judge_batch")
        promotions = _task_ends(stack, dag_id(spec.model, "retrain"), "promote_candidate")
        return cls(
            {key: verdicts[key] - landed for key, landed in landed_at.items() if key in verdicts},
            {
                key: promotions[key] - landed
                for key, landed in landed_at.items()
                if key in promotions
            },
        )


def _task_ends(stack: Stack, dag: str, task: str) -> dict[str, float]:
    """Give, per partition, when a task first succeeded, as a POSIX time."""
    ends: dict[str, float] = {}
    for run in stack.get(f"dags/{dag}/dagRuns", limit=500)["dag_runs"]:
        partition = run.get("partition_key") or (run.get("conf") or {}).get("partition")
        found = stack.get(f"dags/{dag}/dagRuns/{run['dag_run_id']}/taskInstances/{task}")
        if partition and found["state"] == "success":
            end = dt.datetime.fromisoformat(found["end_date"]).timestamp()
            ends[partition] = min(end, ends.get(partition, end))
    return ends


def build_scoreboard(
    spec: ModelSpec,
    settings: Settings,
    batches: list[BatchRef],
    timeline: Timeline,
    *,
    rollback_s: float | None,
) -> dict[str, Any]:
    """Give one row per partition, and totals, as plain JSON values."""
    storage = Storage.of(settings)
    first = next((entry.version for entry in ledger.read(storage, spec.model)), None)
    rows = [_row(spec, settings, storage, batch, first) for batch in batches]
    gains = [
        row["auc_champion"] - row["auc_frozen"] for row in rows if row["auc_champion"] is not None
    ]
    promotions = [
        entry for entry in ledger.read(storage, spec.model) if entry.action == "promotion"
    ]
    totals = {
        "retrains": sum(row["retrained"] for row in rows),
        "promotions": len(promotions),
        "mean_auc_gain": round(statistics.fmean(gains), 4) if gains else None,
        "rows_in": sum(row["rows_in"] for row in rows),
        "rows_good": sum(row["rows_good"] for row in rows),
        "rows_quarantined": sum(row["rows_quarantined"] for row in rows),
        "landing_to_verdict_s": _median(timeline.to_verdict),
        "landing_to_promotion_s": _median(timeline.to_promotion),
        "rollback_s": round(rollback_s, 1) if rollback_s is not None else None,
        "slack_messages": len(Storage(f"file://{settings.home / 'slack'}").list("")),
    }
    return {"partitions": rows, "totals": totals}


def _row(
    spec: ModelSpec, settings: Settings, storage: Storage, batch: BatchRef, frozen: int | None
) -> dict[str, Any]:
    report = shelf.find(storage, ValidationReport, spec.model, batch.partition)
    assert report is not None
    verdict = shelf.find(storage, Verdict, spec.model, batch.partition)
    gate = None
    if verdict is not None:
        gate = shelf.find(storage, GateDecision, spec.model, verdict.incident_id)
    champion = verdict.champion_version if verdict else None
    return {
        "partition": batch.partition,
        "rows_in": report.rows_in,
        "rows_good": report.rows_good,
        "rows_quarantined": report.rows_quarantined,
        "verdict": verdict.outcome if verdict else "refused",
        "worst_feature": verdict.worst_feature if verdict else None,
        "ks_distance": _rounded(verdict.ks_distance if verdict else None),
        "retrained": gate is not None,
        "gate": None if gate is None else "passed" if gate.passed else "rejected",
        "champion_version": champion,
        "auc_champion": _rounded(value_of(spec, settings, batch, champion)),
        "auc_frozen": _rounded(value_of(spec, settings, batch, frozen if champion else None)),
    }


def render(board: dict[str, Any], settings: Settings) -> str:
    """Give the scoreboard as text."""
    head = (
        "week",
        "rows in",
        "good",
        "quarant.",
        "verdict",
        "worst feature",
        "KS",
        "gate",
        "champion",
        "AUC",
        "frozen",
    )
    lines = [head]
    for row in board["partitions"]:
        version = row["champion_version"]
        lines.append(
            (
                row["partition"],
                f"{row['rows_in']:,}",
                f"{row['rows_good']:,}",
                f"{row['rows_quarantined']:,}",
                row["verdict"],
                row["worst_feature"] or "-",
                _text(row["ks_distance"]),
                row["gate"] or "-",
                f"v{version}" if version else "-",
                _text(row["auc_champion"]),
                _text(row["auc_frozen"]),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    ]
    table.insert(1, "  ".join("-" * width for width in widths))
    totals = board["totals"]
    balance = totals["rows_good"] + totals["rows_quarantined"]
    return "\n".join(
        [
            "",
            *table,
            "",
            (
                f"retrains {totals['retrains']}, promotions {totals['promotions']}, "
                f"mean AUC regained over the frozen first model {_signed(totals['mean_auc_gain'])}"
            ),
            f"rows in {totals['rows_in']:,} = good {totals['rows_good']:,} + quarantined "
            f"{totals['rows_quarantined']:,}"
            + ("" if balance == totals["rows_in"] else "  NOT EQUAL"),
            (
                f"landing to verdict    {_seconds(totals['landing_to_verdict_s'])} "
                f"(median; promised {PROMISED_VERDICT_S} s)"
            ),
            (
                f"landing to promotion  {_seconds(totals['landing_to_promotion_s'])} "
                f"(median; promised {PROMISED_PROMOTION_S} s)"
            ),
            (
                f"rollback drill        {_seconds(totals['rollback_s'])} "
                f"(promised {PROMISED_ROLLBACK_S} s)"
            ),
            f"Slack messages        {totals['slack_messages']}, kept in {settings.home / 'slack'}",
            f"scoreboard            {settings.home / 'scoreboard.json'}",
        ]
    )


def _median(seconds: dict[str, float]) -> float | None:
    return round(statistics.median(seconds.values()), 1) if seconds else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"


def _seconds(value: float | None) -> str:
    return "     -  " if value is None else f"{value:6.1f} s"
