"""Drift-triggered retraining: the domain. Imports and tests without Airflow; start reading at records.py."""
