"""Tells Airflow of the bundle. The only file of plugins/ that Airflow executes itself.

The folder being on Airflow's path is what lets the DAGs, the triggerer and the API server import
the package beside it. Every part of Airflow loads this file; only the API server needs the page.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin
from retraining_provider.timetables import PartitionTimetable, RetrainTimetable


class _Page:
    """The endpoints of the page, imported when the API server is first asked for one."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from retraining_provider.page.app import app

        await app(scope, receive, send)


def _views() -> list[dict[str, Any]]:
    script = {"bundle_url": "retraining/page.js"}
    return [
        {
            "name": "Models",
            "url_route": "models",
            "destination": "nav",
            "nav_top_level": True,
            **script,
        },
        {"name": "Model", "url_route": "model", "destination": "dag", **script},
    ]


class RetrainingPlugin(AirflowPlugin):
    """Shown under Admin > Plugins, so that one can see whether Airflow has found the folder."""

    name = "retraining"
    timetables = [PartitionTimetable, RetrainTimetable]  # noqa: RUF012 - Airflow reads a list
    fastapi_apps = [{"app": _Page(), "url_prefix": "/retraining", "name": "Models"}]  # noqa: RUF012 - as above
    react_apps = _views()
