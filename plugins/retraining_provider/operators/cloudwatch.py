"""Puts a model's numbers into Amazon CloudWatch."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.common.compat.sdk import BaseOperator

from retraining_provider.defaults import BACKGROUND
from retraining_provider.hooks.retraining import RetrainingHook

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.retraining.spec import ModelSpec


class CloudWatchOperator(BaseOperator):
    """Put a model's numbers, as they are now, into the namespace `export.cloudwatch`.

    They are of the newest batch that was judged, whichever run puts them.

    :param spec: the model.
    :param aws_conn_id: credentials, region and endpoint.
    """

    ui_color = "#f0e4d4"

    def __init__(self, *, spec: ModelSpec, aws_conn_id: str = "aws_default", **kwargs: Any) -> None:
        super().__init__(**BACKGROUND, **kwargs)
        self.spec = spec
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> int:  # noqa: ARG002 - Airflow's signature
        """Put them; give how many."""
        from include.retraining.telling import gauges

        settings = RetrainingHook(aws_conn_id=self.aws_conn_id).settings()
        known = gauges.of_model(self.spec, settings)
        found = gauges.as_cloudwatch(self.spec.model, known, at=dt.datetime.now(dt.UTC))
        client = AwsBaseHook(aws_conn_id=self.aws_conn_id, client_type="cloudwatch").get_conn()
        client.put_metric_data(Namespace=self.spec.export.cloudwatch, MetricData=found)
        return len(found)
