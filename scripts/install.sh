#!/usr/bin/env bash
# Makes a virtual environment with what the bundle runs on, byte-compiled: otherwise every process of Airflow
# compiles a thousand modules again.
#
#   scripts/install.sh VENV [REQUIREMENTS]        needs `uv` on the path; PYTHON says which interpreter
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${1:?"usage: scripts/install.sh VENV [REQUIREMENTS]"}
requirements=${2:-$root/requirements.txt}

uv venv --quiet --python "${PYTHON:-python3}" "$venv"
VIRTUAL_ENV=$venv uv pip install --quiet --compile-bytecode --requirements "$requirements"
VIRTUAL_ENV=$venv uv pip check
