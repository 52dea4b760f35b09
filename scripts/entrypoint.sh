#!/usr/bin/env bash
# What each service of the image runs:
#
#   init                   once, before the others: the tables of Airflow, and the bucket (`bucket` alone, too)
#   api-server, scheduler, dag-processor, triggerer
#   mlflow                 the tracking server; its options are MLFLOW_* variables
#   land [WEEKS]           deliver the first weeks of the example's flights, with their weather (default: 12)
#   retraining ARGUMENTS   the command line of include/retraining, with what the connections know
#
# Anything else is run as it is.
set -euo pipefail
self=$(realpath "${BASH_SOURCE[0]}")
cd "$(dirname "$self")/.."

case "${1:-}" in
init)
    airflow db migrate
    exec "$self" bucket
    ;;
bucket)
    python - <<'PY'
import os
from airflow.providers.amazon.aws.hooks.s3 import S3Hook

bucket = os.environ["RETRAINING_STORAGE_URL"].removeprefix("s3://").split("/")[0]
hook = S3Hook("aws_default")
if hook.check_for_bucket(bucket):
    print(f"bucket {bucket} is there")
else:
    hook.create_bucket(bucket)
    print(f"bucket {bucket} made")
PY
    ;;
api-server)
    # Airflow's simple auth manager makes up a password for whoever has none in this file
    passwords=${AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE:-}
    if [[ -n ${AIRFLOW_ADMIN_PASSWORD:-} && -n $passwords ]]; then
        (umask 077 && python -c 'import json, os; print(json.dumps({"admin": os.environ["AIRFLOW_ADMIN_PASSWORD"]}))' >"$passwords")
    fi
    unset AIRFLOW_ADMIN_PASSWORD
    exec airflow api-server
    ;;
scheduler | dag-processor | triggerer)
    exec airflow "$@"
    ;;
mlflow)
    exec mlflow server
    ;;
land)
    export AIRFLOW__LOGGING__LOGGING_LEVEL=ERROR
    PYTHONPATH=plugins exec python -W ignore - "${2:-12}" <<'PY'
import sys
from retraining_provider.hooks.retraining import RetrainingHook
from include.demo.flights_feed import land, push_weather
from include.retraining.spec import load_specs
from include.retraining.storage import Storage

settings = RetrainingHook().settings()
storage = Storage.of(settings)
(spec,) = (spec for spec in load_specs().specs if spec.model == "flights")
start = spec.partitions.first
for _ in range(int(sys.argv[1])):
    batch = spec.batch_ref(spec.partition_key(start))
    push_weather(spec, settings, batch)
    land(storage, batch)
    print(f"landed {batch.partition} in {storage.url}", flush=True)
    start = batch.end
PY
    ;;
retraining)
    shift
    export AIRFLOW__LOGGING__LOGGING_LEVEL=ERROR # what is printed is the answer
    PYTHONPATH=plugins exec python -W ignore -c '
import sys
from retraining_provider.hooks.retraining import RetrainingHook
from include.retraining.__main__ import main

RetrainingHook().settings()  # puts the credentials of the connection where every library looks for them
sys.exit(main(sys.argv[1:]))' "$@"
    ;;
*)
    exec "$@"
    ;;
esac
