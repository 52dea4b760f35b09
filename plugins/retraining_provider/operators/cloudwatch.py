"""Puts a batch's numbers into Amazon CloudWatch."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.common.compat.sdk import BaseOperator

from retraining_provider.defaults import BACKGROUND

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.retraining.spec import ModelSpec


class CloudWatchOperator(BaseOperator):
    """Put what a batch's report and verdict say in numbers into the namespace `export.cloudwatch`.

    A number is of the moment at which it is put. A run that is cleared puts it again, and one that
    judges an old batch anew puts that batch's: look at when it was put.

    :param spec: the model.
    :param report: a `DriftReport` as JSON, from XCom (templated).
    :param verdict: its `Verdict` as JSON, from XCom (templated).
    :param aws_conn_id: credentials, region and endpoint.
    """

    template_fields: Sequence[str] = ("report", "verdict")
    ui_color = "#f0e4d4"

    def __init__(
        self,
        *,
        spec: ModelSpec,
        report: Any,
        verdict: Any,
        aws_conn_id: str = "aws_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**BACKGROUND, **kwargs)
        self.spec = spec
        self.report = report
        self.verdict = verdict
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> int:  # noqa: ARG002 - Airflow's signature
        """Put them; give how many."""
        from include.retraining.records import DriftReport, Verdict
        from include.retraining.telling import gauges

        report = DriftReport.model_validate(self.report)
        verdict = Verdict.model_validate(self.verdict)
        found = gauges.as_cloudwatch(
            self.spec.model, gauges.of_batch(report, verdict), at=dt.datetime.now(dt.UTC)
        )
        client = AwsBaseHook(aws_conn_id=self.aws_conn_id, client_type="cloudwatch").get_conn()
        client.put_metric_data(Namespace=self.spec.export.cloudwatch, MetricData=found)
        return len(found)
