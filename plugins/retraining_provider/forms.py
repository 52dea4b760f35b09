"""What a person can enter who starts a run by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import Param

if TYPE_CHECKING:
    from include.retraining.spec import ModelSpec

# Param objects keep what a run was given: each DAG gets its own


def of_partition(spec: ModelSpec) -> dict[str, Param]:
    """Give the form of a run about one batch."""
    example = spec.partition_key(spec.partitions.first)
    return {
        "partition": Param(
            None,
            type=["null", "string"],
            title="Partition",
            description=f"Only for a run by hand, for example {example}.",
        )
    }


def _reason(description: str) -> Param:
    return Param(
        None, type=["null", "string"], title="Reason", description=description, maxLength=2000
    )


def of_monitor(spec: ModelSpec) -> dict[str, Param]:
    """Give the form of the monitor."""
    return of_partition(spec) | {
        "measure_anew": Param(
            False,
            type="boolean",
            title="Measure anew",
            description="Judge the batch again, although it has its verdict.",
        ),
        "right_columns": Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            title="Columns that are right",
            description="Where their feed is said to have broken, one a line: from this batch on "
            "they are right as they are. Its rows train again, and it is judged anew.",
        ),
        "reason": _reason("Why they are right, for the record."),
    }


def of_retrain() -> dict[str, Param]:
    """Give the form of the retrain."""
    return {
        "partition": Param(
            None,
            type=["null", "string"],
            title="Partition",
            description="The newest batch the retrain may read; empty: the newest published one.",
        ),
        "reason": _reason("Why, for the ledger. A run by hand needs one."),
        "force": Param(
            False,
            type="boolean",
            title="Force",
            description="Retrain in spite of cool-down, budget, an earlier retrain of the same "
            "cause, or a champion that was deleted in MLflow.",
        ),
    }


def of_rollback() -> dict[str, Param]:
    """Give the form of the rollback."""
    return {
        "reason": Param(
            type="string", minLength=3, title="Reason", description="Why, for the ledger."
        ),
        "to_version": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Version",
            description="Empty: the champion before the current one.",
        ),
    }


def of_replay(spec: ModelSpec) -> dict[str, Param]:
    """Give the form of the replay of a quarantine."""
    return {
        "partition": Param(
            type="string",
            title="Partition",
            description=f"For example {spec.partition_key(spec.partitions.first)}.",
        ),
        "reason": Param(
            type="string", minLength=3, title="Reason", description="Why, for the report."
        ),
        "input": Param(
            "batch",
            enum=["batch", *spec.source.companions],
            title="Input",
            description="Which files the mapping is about.",
        ),
        "renames": Param(
            {},
            type="object",
            title="Renamed columns",
            description='Name in the files to declared name: {"dist": "distance"}.',
        ),
        "replacements": Param(
            {},
            type="object",
            title="Replaced values",
            description='By declared name: {"origin": {"Newark": "EWR", "?": null}}.',
        ),
    }
