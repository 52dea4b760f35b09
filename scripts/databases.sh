#!/usr/bin/env bash
# Makes the databases of MLflow and Feast beside Airflow's; PostgreSQL's image runs it on an empty volume.
# Safe to run again. The server and the login are what PGHOST, POSTGRES_USER and so on say.
set -euo pipefail

for database in ${DATABASES:-mlflow feast}; do
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --set name="$database" \
        --username "${POSTGRES_USER:-postgres}" --dbname "${POSTGRES_DB:-postgres}" <<'SQL'
SELECT format('CREATE DATABASE %I', :'name')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
SQL
done
