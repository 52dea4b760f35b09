"""Registers what the bundle adds to Airflow. The only file of plugins/ that Airflow executes itself."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class RetrainingPlugin(AirflowPlugin):
    """Links of the bundle's operators; the package retraining_provider has the operators themselves."""

    name = "retraining"
