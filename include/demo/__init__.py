"""The demo: real flights, replayed week by week through a real Airflow."""
