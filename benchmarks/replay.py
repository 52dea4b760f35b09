"""When to retrain: policies over the whole past of the example models, with real models.

``python -m benchmarks.replay [--models churn] [--quick]``. Ingests every week into a folder of its
own once, then runs `include.retraining.replay` twice: as the pipeline would have it (the duel
window held out, the gate deciding), and as studies of schedules have it (all rows, no gate). Of the
flights, weeks 6 to 52, and the latter once more from 13 beginnings, week 6 to week 18, whose means
tell policies apart from luck. Writes var/bench/replay.json and a picture of each.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from include.demo import churn_feed, flights_feed
from include.retraining.data import publication, validation
from include.retraining.features import feature_sets
from include.retraining.replay.outcomes import replay
from include.retraining.replay.past import Past, Window, published_windows
from include.retraining.replay.picture import as_picture
from include.retraining.replay.policies import standard_policies
from include.retraining.replay.table import as_json, as_table
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, ModelSpec, load_spec
from include.retraining.storage import Storage

OUT = Path("var/bench/replay.json")
HOME = Path("var/bench/replay").resolve()
LAND = {"flights": flights_feed.land, "churn": churn_feed.land}
FIRST = {"flights": "2013-02-11", "churn": None}  # the sixth week; as early as possible
TRIED = [f"retrain.growth={growth}" for growth in (0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)]
STARTS = 13


def past_of(spec: ModelSpec) -> list[Window]:
    """Ingest every week that is not there yet; give all of them with their features."""
    HOME.mkdir(parents=True, exist_ok=True)
    settings = Settings(home=HOME)
    storage = Storage.of(settings)
    parts = spec.partitions
    assert parts.last is not None
    count = (parts.last - parts.first) // parts.length + 1
    batches = [
        spec.batch_ref(spec.partition_key(parts.first + n * parts.length)) for n in range(count)
    ]
    for batch in shown(batches, "ingesting weeks", len(batches)):
        if feature_sets.feature_set_or_none(spec, storage, batch) is None:
            LAND[spec.model](storage, batch)
            for source in filter(None, [spec, spec.outcomes]):
                part = source.batch_ref(batch.partition)
                report = validation.validate_batch(source, storage, part)
                publication.publish_batch(source, storage, report)
            feature_sets.materialize(spec, settings, batch)
    return published_windows(spec, storage)


def shown(items: Any, title: str, length: int) -> Any:
    """Show progress on the terminal's error stream."""
    return track(items, title, total=length, console=Console(stderr=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the first 26 weeks")
    parser.add_argument("--models", nargs="+", default=list(LAND), choices=list(LAND))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    results: dict[str, Any] = {}
    for model in options.models:
        spec = load_spec(MODELS_DIR / f"{model}.yaml")
        windows = past_of(spec)[: 26 if options.quick else None]
        policies = standard_policies(spec, TRIED, windows=len(windows) - 1)
        pasts = {
            mode: Past(spec, windows, first=FIRST[model], ideal=mode == "ideal")
            for mode in ("pipeline", "ideal")
        }
        runs = [("pipeline", 1), ("ideal", 1)]
        runs += [] if options.quick else [("ideal", STARTS)]
        for mode, starts in runs:
            past = pasts[mode]
            outcomes = replay(past, policies, starts=starts, progress=shown)
            name = f"{model}, {mode}" + (f", mean of {starts} beginnings" if starts > 1 else "")
            print(f"\n--- {name}\n{as_table(past, outcomes, starts=starts)}", flush=True)
            results[name] = json.loads(as_json(past, outcomes, starts=starts))
            OUT.parent.mkdir(parents=True, exist_ok=True)
            picture = OUT.with_name(f"replay-{model}-{mode}{'' if starts == 1 else '-mean'}.png")
            picture.write_bytes(as_picture(past, outcomes))
            OUT.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
