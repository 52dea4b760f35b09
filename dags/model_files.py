"""Makes a wrong model file visible as an import error in the UI; the other models' DAGs still load.

It holds no DAG. Airflow reads it all the same, because it finds the words "airflow" and "dag"
in it.
"""

from __future__ import annotations

from pathlib import Path

from retraining_provider.generation import failures

from include.retraining.errors import SpecError

if wrong := failures(Path(__file__).parent):
    raise SpecError("\n".join(map(str, wrong)))
