"""What the DAGs use beside Airflow's own providers: hook, operators, sensor, notifier."""
