"""Makes a wrong model file visible as an import error in the UI; the DAGs of the other models still load."""

from __future__ import annotations

from include.retraining.errors import SpecError
from include.retraining.spec import load_specs

if wrong := load_specs().errors:
    raise SpecError("\n".join(map(str, wrong)))
