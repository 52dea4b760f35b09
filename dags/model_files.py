"""Makes a wrong model file visible as an import error in the UI; the other models' DAGs still load.

It holds no DAG. Airflow reads it all the same, because it finds the words "airflow" and "dag"
in it.
"""

from __future__ import annotations

from include.retraining.errors import SpecError
from include.retraining.spec import load_specs

if wrong := load_specs().errors:
    raise SpecError("\n".join(map(str, wrong)))
