"""Tells Airflow of the bundle. The only file of plugins/ that Airflow executes itself.

The folder being on Airflow's path is what lets the DAGs, the triggerer and the API server import
the package beside it; pages and listeners would be registered here.
"""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin
from retraining_provider.timetables import PartitionTimetable, RetrainTimetable


class RetrainingPlugin(AirflowPlugin):
    """Shown under Admin > Plugins, so that one can see whether Airflow has found the folder."""

    name = "retraining"
    timetables = [PartitionTimetable, RetrainTimetable]  # noqa: RUF012 - Airflow reads a list
