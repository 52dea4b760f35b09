"""Waits until a partition has landed, wherever the storage is."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout

from retraining_provider.context import batch_of
from retraining_provider.hooks.retraining import RetrainingHook
from retraining_provider.operators.snapshot import SnapshotOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.retraining.spec import ModelSpec


class LandingSensor(BaseSensorOperator):
    """Wait, deferred, for every file of the run's partition.

    On ``s3://`` it defers to the Amazon provider's ``S3KeyTrigger``, on files to the standard
    provider's ``FileTrigger``; neither holds a worker slot.

    :param spec: the model; its ``partitions`` say how often to look and when to give up.
    :param aws_conn_id: connection for ``s3://``.
    """

    ui_color = "#d4e8f0"

    def __init__(self, *, spec: ModelSpec, aws_conn_id: str = "aws_default", **kwargs: Any) -> None:
        super().__init__(
            poke_interval=spec.partitions.landing_poll_seconds,
            timeout=spec.partitions.landing_timeout_hours * 3600,
            **kwargs,
        )
        self.spec = spec
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context, event: Any = None) -> list[str]:
        """Give the URLs of the landed files, or defer until the first missing one is there."""
        from include.retraining.data.delivery import awaited_keys
        from include.retraining.storage import Storage

        if isinstance(event, dict) and event.get("status") == "error":
            raise RuntimeError(f"looking for the landing files failed: {event.get('message')}")
        storage = Storage.of(RetrainingHook(aws_conn_id=self.aws_conn_id).settings())
        batch = batch_of(self.spec, context)
        keys = awaited_keys(self.spec, batch.partition)
        urls = [storage.url_of(key) for key in keys]
        for key, url in zip(keys, urls, strict=True):
            if not storage.exists(key):
                self.log.info("waiting for %s", url)
                self.defer(
                    trigger=self._trigger(storage, url),
                    method_name="execute",
                    timeout=dt.timedelta(seconds=self.timeout),
                )
        return urls

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Turn the time-out of the wait into what a person can act on."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowSensorTimeout as error:
            batch = batch_of(self.spec, context)
            raise AirflowFailException(
                f"{self.spec.model} {batch.partition}: nothing landed within "
                f"{self.spec.partitions.landing_timeout_hours:g} hours; deliver the files, then "
                "clear this task"
            ) from error

    def _trigger(self, storage: Any, url: str) -> Any:
        if not storage.is_local:
            from airflow.providers.amazon.aws.triggers.s3 import S3KeyTrigger

            bucket, _, key = url.removeprefix("s3://").partition("/")
            return S3KeyTrigger(
                bucket_name=bucket,
                bucket_key=key,
                aws_conn_id=self.aws_conn_id,
                poke_interval=self.poke_interval,
            )
        from airflow.providers.standard.triggers.file import FileTrigger

        return FileTrigger(filepath=url.removeprefix("file://"), poke_interval=self.poke_interval)


def wait_for_landing(spec: ModelSpec) -> LandingSensor:
    """Add to the DAG at hand: the results of the source's queries land, and its files are awaited.

    :param spec: the model, or its feed of outcomes.
    """
    wait = LandingSensor(
        task_id="wait_for_landing",
        spec=spec,
        # a file that lands within moments can resume the task before the executor has reported
        # that it was deferred; Airflow takes that for a failure, and one more look mends it
        retries=10,
        retry_delay=dt.timedelta(seconds=1),
        retry_exponential_backoff=0,
    )
    if spec.source.queries:
        SnapshotOperator(task_id="snapshot_source", spec=spec) >> wait
    return wait
