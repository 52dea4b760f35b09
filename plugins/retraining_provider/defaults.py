"""What every task of the bundle has in common, and what each kind of task has of its own."""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING, Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryDecision, RetryRule

from include.retraining.names import EventStage, Stage
from retraining_provider.notifications.failure import FailureNotifier

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.retraining.spec import ModelSpec

# how long a task may hold its slot; time that it spends deferred or parked does not count
SHORT = dt.timedelta(minutes=15)  # looks, decides or tells
DATA = dt.timedelta(hours=3)  # works on the rows of a batch
TRAINING = dt.timedelta(hours=24)  # fits models

# which of the waiting tasks gets the next free slot: the larger number. A rollback is an emergency;
# a retrain that has begun ends before more batches come in
PRIORITY: dict[Stage | EventStage, int] = {
    "rollback": 50,
    "guard": 50,
    "retrain": 40,
    "monitor": 30,
    "watch_landing": 20,
    "outcomes": 20,
    "replay_quarantine": 20,
    "ingest": 10,
}

# For pages, cards and checks that nothing waits for: last in line, and one at a time of each task,
# so that a backfill's pages never take the slots its verdicts need. Not a pool: a pool has to be
# made on each Airflow, and tasks of one that is missing wait for ever.
BACKGROUND: dict[str, Any] = {"priority_weight": 1, "max_active_tis_per_dag": 1}

# For what works on the rows of a batch: bounds the memory and the writers of one model, however
# many of its runs are open.
ROWS: dict[str, Any] = {"execution_timeout": DATA, "max_active_tis_per_dag": 4}

GUARDED = ("rollback", "ask")  # modes of the guard that move the champion

FEWEST_OPEN_RUNS = 32
MOST_OPEN_RUNS = 512  # a triggerer holds 1,000 waits

LONGEST_RETRY_DELAY = dt.timedelta(hours=6)


class _Retries(ExceptionRetryPolicy):
    """Retries by the rules; what is `Busy` is left alone for as long as it asks, without a slot."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Context | None = None,
    ) -> RetryDecision:
        """Decide whether and when a task is retried."""
        from include.retraining.errors import Busy
        from include.retraining.registry.server import is_refusal

        if is_refusal(exception):
            return RetryDecision.fail(f"MLflow would answer the same again: {exception}")
        if not isinstance(exception, Busy):
            return super().evaluate(exception, try_number, max_tries, context)
        delay = min(dt.timedelta(seconds=exception.seconds), LONGEST_RETRY_DELAY)
        return RetryDecision.retry(delay, str(exception))


_RETRIES = _Retries(
    rules=[
        RetryRule(
            exception="include.retraining.errors.RetrainingError",
            action=RetryAction.FAIL,
            reason="a retry cannot mend data or state",
        )
    ]
)


def open_runs(spec: ModelSpec) -> int:
    """Give how many runs of a model may be open at once where they wait for files.

    A run that waits is an active one for Airflow, though it holds no slot. So there is room for
    each partition that can be missing before the wait for the first one is given up, and for four
    that have landed.
    """
    parts = spec.partitions
    waiting = math.ceil(dt.timedelta(hours=parts.landing_timeout_hours) / parts.length)
    return min(max(waiting + 4, FEWEST_OPEN_RUNS), MOST_OPEN_RUNS)


def task_defaults(spec: ModelSpec, stage: Stage | EventStage) -> dict[str, Any]:
    """Give the default arguments of the tasks of one stage.

    The world's faults are retried; the bundle's own errors are about data or state, and fail at
    once.
    """
    return {
        "owner": spec.owner,
        "retries": 3,
        "retry_delay": dt.timedelta(seconds=20),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": dt.timedelta(minutes=10),
        "retry_policy": _RETRIES,
        "execution_timeout": SHORT,
        "priority_weight": PRIORITY[stage],
        "weight_rule": "absolute",  # else a task early in a long DAG outweighs all that matters
        "on_failure_callback": [FailureNotifier(spec=spec)],
    }
