"""Waits for the events of a bucket, so that a batch starts when it lands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent


class LandingTrigger(BaseEventTrigger):
    """Fire for each handful of messages on an SQS queue that a bucket sends its events to.

    It is the Amazon provider's ``SqsSensorTrigger``, imported only where it runs: a DAG file that
    names it does not import boto3. Messages are deleted as they are taken; should the triggerer die
    at that very moment, the schedule still finds the files.

    :param queue_url: address of the queue; nothing else may read it.
    :param aws_conn_id: connection with ``sqs:ReceiveMessage`` and ``sqs:DeleteMessage``.
    """

    def __init__(self, *, queue_url: str, aws_conn_id: str = "aws_default") -> None:
        super().__init__()
        self.queue_url = queue_url
        self.aws_conn_id = aws_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give what the triggerer makes the trigger of."""
        return (
            "retraining_provider.triggers.landing.LandingTrigger",
            {"queue_url": self.queue_url, "aws_conn_id": self.aws_conn_id},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Give messages as they come, in events with ``message_batch``."""
        from airflow.providers.amazon.aws.triggers.sqs import SqsSensorTrigger

        while True:
            trigger = SqsSensorTrigger(
                self.queue_url,
                aws_conn_id=self.aws_conn_id,
                max_messages=10,
                wait_time_seconds=20,
                waiter_delay=1,
            )
            async for event in trigger.run():
                yield event
