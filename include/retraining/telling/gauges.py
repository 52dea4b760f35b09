"""Gives a model's numbers to those who watch numbers: a Prometheus, or Amazon CloudWatch.

What is not known has no number: no line, never 0.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from include.retraining import shelf
from include.retraining.records import DriftReport, Verdict
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from include.retraining.telling.status import status_of

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PREFIX = "retraining"


class Gauge(NamedTuple):
    """One number of a model; `extra` are labels beside its name."""

    name: str  # for Prometheus, without the prefix
    metric: str  # for CloudWatch
    value: float
    help: str
    extra: tuple[tuple[str, str], ...] = ()


def of_batch(report: DriftReport, verdict: Verdict) -> Iterator[Gauge]:
    """Give what a batch's report and verdict say in numbers."""
    unjudged = {one.name for one in report.unjudged}
    judged = [one for one in report.columns if one.name not in unjudged]
    drifted = [one for one in judged if one.drifted and not one.expected]
    if report.champion_version is not None:
        yield Gauge(
            "champion_version", "ChampionVersion", report.champion_version,
            "The version that the newest batch was held against.",
        )  # fmt: skip
    if judged:
        yield Gauge(
            "data_drift_detected", "DataDriftDetected", float(bool(drifted)),
            "1: a judged column of the newest batch drifted that is not declared as expected.",
        )  # fmt: skip
        yield Gauge(
            "drifted_feature_share", "DriftedFeatureShare", len(drifted) / len(judged),
            "Of the judged columns of the newest batch, those that drifted unexpectedly.",
        )  # fmt: skip
    if report.columns:
        yield Gauge(
            "unjudged_feature_share", "UnjudgedFeatureShare", len(unjudged) / len(report.columns),
            "Of all columns of the newest batch, those that could not be judged.",
        )  # fmt: skip
    yield from _performance(report)
    if report.champion_age_days is not None:
        yield Gauge(
            "model_age_days", "ModelAgeDays", report.champion_age_days,
            "Days from the end of what the champion learned from to the newest batch's end.",
        )  # fmt: skip
    if verdict.harm is not None and verdict.harm.state != "not known":
        yield Gauge(
            "performance_fallen", "PerformanceFallen", float(verdict.harm.state == "below"),
            "1: by all windows so far the champion's metric has fallen below its promise.",
        )  # fmt: skip
    yield Gauge(
        "verdict", "", 1.0, "The outcome of the newest batch.", (("outcome", verdict.outcome),)
    )
    yield Gauge(
        "newest_batch_end_seconds", "", report.batch.end.timestamp(),
        "End of the newest batch that was judged, as a POSIX time.",
    )  # fmt: skip


def _performance(report: DriftReport) -> Iterator[Gauge]:
    found = report.performance
    if found is not None:
        yield Gauge(
            "realised_metric", "RealisedMetric", found.value,
            "The champion's metric on the newest rows with a mature label.",
            (("metric", found.metric),),
        )  # fmt: skip
    if report.promise is not None:
        yield Gauge(
            "promised_metric", "PromisedMetric", report.promise.value,
            "The champion's metric on the rows of its duel.", (("metric", report.promise.metric),),
        )  # fmt: skip


def of_model(spec: ModelSpec, settings: Settings) -> tuple[Gauge, ...]:
    """Give the numbers of a model as they are now, by its newest judged batch."""
    status, storage = status_of(spec, settings), Storage.of(settings)
    due = Gauge(
        "outcomes_due", "OutcomesDue", float(len(status.outcomes_due)),
        "Partitions of outcomes that are due and missing.",
    )  # fmt: skip
    if status.newest_batch is None or status.verdict is None:
        return (due,)
    report = shelf.find(storage, DriftReport, spec.model, status.verdict.batch.partition)
    return (due,) if report is None else (due, *of_batch(report, status.verdict))


def as_openmetrics(models: Iterable[tuple[str, Sequence[Gauge] | None]]) -> bytes:
    """Write the numbers of models as a Prometheus reads them.

    Parameters
    ----------
    models : iterable of (str, sequence of Gauge or None)
        None: the model cannot be read, which is a number of its own (``retraining_readable``).
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.openmetrics.exposition import generate_latest

    families: dict[str, GaugeMetricFamily] = {}

    def add(model: str, one: Gauge) -> None:
        names = [name for name, _ in one.extra]
        family = families.get(one.name)
        if family is None:
            full = f"{PREFIX}_{one.name}"
            family = GaugeMetricFamily(full, one.help, labels=["model", *names])
            families[one.name] = family
        family.add_metric([model, *(value for _, value in one.extra)], one.value)

    for model, gauges in models:
        told = "1: the records of the model can be read."
        add(model, Gauge("readable", "", float(gauges is not None), told))
        for one in gauges or ():
            add(model, one)

    class Found:
        def collect(self) -> Iterable[GaugeMetricFamily]:
            return families.values()

    registry = CollectorRegistry()
    registry.register(Found())
    content: bytes = generate_latest(registry)  # type: ignore[no-untyped-call,unused-ignore]
    return content


def as_cloudwatch(
    model: str, gauges: Iterable[Gauge], *, at: dt.datetime
) -> list[dict[str, object]]:
    """Give numbers as the ``MetricData`` of CloudWatch's PutMetricData.

    The dimensions are the model, and what is measured where there are several.
    """
    return [
        {
            "MetricName": one.metric,
            "Dimensions": [
                {"Name": "Model", "Value": model},
                *({"Name": name.capitalize(), "Value": value} for name, value in one.extra),
            ],
            "Timestamp": at,
            "Value": one.value,
        }
        for one in gauges
        if one.metric
    ]
