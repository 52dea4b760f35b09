"""What all tests share: no library of theirs calls home."""

from __future__ import annotations

import os

# before any of these libraries is imported
os.environ["DO_NOT_TRACK"] = "true"  # Evidently, Feast
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["GX_ANALYTICS_ENABLED"] = "false"
