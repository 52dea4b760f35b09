"""What every task of the bundle has in common."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

from retraining_provider.notifications.failure import FailureNotifier

if TYPE_CHECKING:
    from include.retraining.spec import ModelSpec


def task_defaults(spec: ModelSpec) -> dict[str, Any]:
    """Give the default arguments of a model's tasks.

    The world's faults are retried; the bundle's own errors are about data or state, and fail at
    once.
    """
    return {
        "owner": spec.owner,
        "retries": 3,
        "retry_delay": dt.timedelta(seconds=20),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": dt.timedelta(minutes=10),
        "retry_policy": ExceptionRetryPolicy(
            rules=[
                RetryRule(
                    exception="include.retraining.errors.RetrainingError",
                    action=RetryAction.FAIL,
                    reason="a retry cannot mend data or state",
                )
            ]
        ),
        "on_failure_callback": [FailureNotifier(spec=spec)],
    }
