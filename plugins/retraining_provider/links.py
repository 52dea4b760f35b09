"""Buttons on the page of a task that lead to what it made."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperatorLink


class ModelVersionLink(BaseOperatorLink):
    """Leads from a task that returns a `Candidate` to its version in the MLflow page."""

    name = "Model version in MLflow"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        """Give the address; empty while the task has returned nothing."""
        from airflow.sdk.execution_time.xcom import XCom

        from retraining_provider.hooks.retraining import RetrainingHook

        candidate = XCom.get_value(ti_key=ti_key, key="return_value")
        if not candidate:
            return ""
        url = RetrainingHook().settings().mlflow_url
        return f"{url}/#/models/{candidate['model']}/versions/{candidate['version']}"


class DriftReportLink(BaseOperatorLink):
    """Leads from a task that returns a `PublishedReport` to its run in the MLflow page."""

    name = "Drift report in MLflow"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        """Give the address; empty while the task has returned nothing."""
        from airflow.sdk.execution_time.xcom import XCom

        from retraining_provider.hooks.retraining import RetrainingHook

        published = XCom.get_value(ti_key=ti_key, key="return_value")
        if not published:
            return ""
        url = RetrainingHook().settings().mlflow_url
        run = f"experiments/{published['experiment_id']}/runs/{published['run_id']}"
        return f"{url}/#/{run}/artifacts"


class DataDocsLink(BaseOperatorLink):
    """Leads from a task that returns a `ValidationReport` to the page about its batch."""

    name = "Data Docs"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        """Give the address; empty while the task has returned nothing."""
        from airflow.sdk.execution_time.xcom import XCom

        from retraining_provider.hooks.retraining import RetrainingHook

        report = XCom.get_value(ti_key=ti_key, key="return_value")
        if not report:
            return ""
        return f"{RetrainingHook().settings().storage_page_url}/{report['page_key']}"
