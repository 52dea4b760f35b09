"""The tasks after a validation, the same whether its files have just landed or were replayed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, Metadata, task
from airflow.sdk.exceptions import AirflowSkipException

from include.retraining.names import asset_name
from retraining_provider.context import current_batch
from retraining_provider.hooks.retraining import RetrainingHook
from retraining_provider.operators.alert import AlertOperator

if TYPE_CHECKING:
    from include.retraining.spec import ModelSpec


def publish_validated(spec: ModelSpec, report: Any) -> None:
    """Add to the DAG at hand: publish the batch of a report, materialize its features, tell.

    :param spec: the model.
    :param report: the ValidationReport as JSON, from XCom.
    """
    validated_batch = Asset(asset_name(spec.model, "validated_batch"))
    features = Asset(asset_name(spec.model, "features"))

    @task(outlets=[validated_batch])
    def publish_batch(report: Any, *, outlet_events: Any = None) -> Any:
        from include.retraining.data.publication import publish_batch
        from include.retraining.features.feature_sets import is_current
        from include.retraining.records import ValidationReport
        from include.retraining.storage import Storage

        found = ValidationReport.model_validate(report)
        storage = Storage.of(RetrainingHook().settings())
        if not publish_batch(spec, storage, found) and is_current(spec, storage, found.batch):
            raise AirflowSkipException("this very content is in force already: nothing to do")
        outlet_events[validated_batch].add_partitions(found.batch.partition)
        yield Metadata(
            validated_batch, {"rows": found.rows_good, "quarantined": found.rows_quarantined}
        )

    @task(outlets=[features])
    def materialize_features(*, outlet_events: Any = None) -> object:
        from include.retraining.features.feature_sets import materialize, refresh_later

        settings, batch = RetrainingHook().settings(), current_batch(spec)
        found = materialize(spec, settings, batch)
        later = [one.batch.partition for one in refresh_later(spec, settings, batch)]
        outlet_events[features].add_partitions([batch.partition, *later])
        outlet_events[features].extra = {"rows": found.rows, "sha256": found.sha256}
        return found.model_dump(mode="json")

    @task
    def check_skew() -> object:
        import os

        from include.retraining.features.skew import check_skew

        os.nice(10)  # the monitor starts at the same time, and goes first

        found = check_skew(spec, RetrainingHook().settings(), current_batch(spec))
        return found.model_dump(mode="json")

    alert_validation = AlertOperator(
        task_id="alert_validation", spec=spec, subject="validation", record=report
    )
    publish = publish_batch(report)

    report >> [publish, alert_validation]
    skew = check_skew()
    publish >> materialize_features() >> skew
    skew >> AlertOperator(task_id="alert_skew", spec=spec, subject="skew", record=skew)
