"""The page "Models" of Airflow's web UI: guarded endpoints, and the script that draws it."""
