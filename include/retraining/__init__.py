"""Drift-triggered retraining: the domain. Needs no Airflow; start reading at records.py."""
