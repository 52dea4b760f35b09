#!/usr/bin/env bash
# Is a service of the image healthy? Its exit status says so: what the containers' health checks run.
#
#   scripts/health.sh api-server | scheduler | dag-processor | triggerer | mlflow
#
# The parts of Airflow are asked of the API server, which knows their heartbeats: `airflow jobs check` would
# cost seconds of CPU time each time.
set -euo pipefail

exec python - "${1:?"usage: scripts/health.sh SERVICE"}" <<'PY'
import json
import os
import sys
import urllib.request

service = sys.argv[1]
parts = {"api-server": "metadatabase", "dag-processor": "dag_processor"}
if service == "mlflow":
    urllib.request.urlopen(f"http://127.0.0.1:{os.environ.get('MLFLOW_PORT', '5000')}/health", timeout=10)
    sys.exit()
server = os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"].removesuffix("/execution/")
with urllib.request.urlopen(f"{server}/api/v2/monitor/health", timeout=10) as answer:
    health = json.load(answer)
status = health[parts.get(service, service)]["status"]
print(f"{service}: {status}")
sys.exit(status != "healthy")
PY
