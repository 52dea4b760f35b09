"""Buttons on the page of a task that lead to what it made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from include.retraining.settings import Settings


class _RecordLink(BaseOperatorLink):
    """Leads from a task that returns a record to where the record is about."""

    def address(self, record: dict[str, Any], settings: Settings) -> str:
        """Give the address that a record leads to."""
        raise NotImplementedError

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        """Give the address; empty while the task has returned nothing."""
        from airflow.sdk.execution_time.xcom import XCom

        from retraining_provider.hooks.retraining import RetrainingHook

        record = XCom.get_value(ti_key=ti_key, key="return_value")
        return self.address(record, RetrainingHook().settings()) if record else ""


class ModelVersionLink(_RecordLink):
    """Leads from a task that returns a `Candidate` to its version in the MLflow page."""

    name = "Model version in MLflow"

    def address(self, record: dict[str, Any], settings: Settings) -> str:
        """Give the page of the version."""
        return f"{settings.mlflow_url}/#/models/{record['model']}/versions/{record['version']}"


class DriftReportLink(_RecordLink):
    """Leads from a task that returns a `PublishedReport` to its run in the MLflow page."""

    name = "Drift report in MLflow"

    def address(self, record: dict[str, Any], settings: Settings) -> str:
        """Give the page of the run's artifacts, the picture among them."""
        run = f"experiments/{record['experiment_id']}/runs/{record['run_id']}"
        return f"{settings.mlflow_url}/#/{run}/artifacts"


class DataDocsLink(_RecordLink):
    """Leads from a task that returns a `ValidationReport` to the page about its batch."""

    name = "Data Docs"

    def address(self, record: dict[str, Any], settings: Settings) -> str:
        """Give the page with Great Expectations' Data Docs; empty where there is none."""
        key = record["page_key"]
        return f"{settings.storage_page_url}/{key}" if key else ""
