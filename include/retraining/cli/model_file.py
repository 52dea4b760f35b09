"""What is wrong with a model file: what reading it says, and what the libraries it names would.

Nothing is trained, read or written; the modules that the file names are imported.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from include.retraining.errors import SpecError, did_you_mean
from include.retraining.spec import MODELS_DIR, ModelSpec, load_spec, load_specs, located


def file_of(name: Path) -> Path:
    """Give a model file by its path or by its model's name; raises SpecError."""
    if name.suffix or name.exists():
        return name
    for path in sorted(MODELS_DIR.glob("*.y*ml")):
        with suppress(SpecError):
            if load_spec(path).model == str(name):
                return path
    known = [spec.model for spec in load_specs().specs]
    raise SpecError(
        f"no file and no model {str(name)!r}{did_you_mean(str(name), known)}; there are: "
        f"{', '.join(known)}"
    )


def findings(paths: Sequence[Path]) -> dict[Path, list[SpecError]]:
    """Give all that would fail at run time, by model file, with the line where there is one."""
    found: dict[Path, list[SpecError]] = {}
    models: dict[tuple[Path, str], Path] = {}
    for path in paths:
        try:
            spec = load_spec(path)
        except SpecError as error:
            found[path] = [error]
            continue
        errors = [*_at_run_time(spec)]
        first = models.setdefault((path.parent, spec.model), path)
        if first != path:
            also = f"model: {spec.model!r} is also the name in {first.name}"
            errors.append(SpecError(also, place=("model",)))
        found[path] = [located(error, path) for error in errors]
    return found


def _at_run_time(spec: ModelSpec) -> Iterator[SpecError]:
    from include.retraining.data.validation import check_suites
    from include.retraining.features import definitions
    from include.retraining.learning import estimator

    yield from _check_schedule(spec)
    yield from definitions.check(spec)
    yield from estimator.check(spec)
    yield from check_suites(spec)


def _check_schedule(spec: ModelSpec) -> Iterator[SpecError]:
    """Read the cron as Airflow does."""
    from croniter import CroniterBadDateError, CroniterError, croniter

    cron = spec.retrain.schedule
    if cron is None:
        return
    setting, place = f"retrain.schedule: {cron!r}", ("retrain", "schedule")
    try:
        ticks = croniter(cron, spec.partitions.first)
        if len(ticks.expanded) != 5:
            yield SpecError(f"{setting} must have 5 fields, such as '0 12 * * 1'", place=place)
            return
        due = ticks.get_next(dt.datetime)
    except CroniterBadDateError:
        yield SpecError(f"{setting} is never due; leave it out, or mend day and month", place=place)
        return
    except CroniterError as error:
        yield SpecError(
            f"{setting} is no cron: {error}; write minute, hour, day, month and weekday, such as "
            "'0 12 * * 1'",
            place=place,
        )
        return
    last = spec.partitions.last
    if last and due > spec.partitions.step(last):
        yield SpecError(
            f"{setting} is never due: first at {due:%Y-%m-%d %H:%M}, after the last partition, "
            f"{last:%Y-%m-%d}",
            place=place,
        )
