"""When a model's DAGs are due: from its first partition to its last.

The bounds are the timetable's and not the DAG's `start_date` and `end_date`. Those hold for each
task as well, and a run by hand carries the date of today: outside of them it would have no tasks
at all, and be green.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from copy import copy
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from airflow.timetables.trigger import CronPartitionTimetable, CronTriggerTimetable
from pendulum import instance

if TYPE_CHECKING:
    from airflow.timetables.base import DagRunInfo, TimeRestriction

    from include.retraining.spec import ModelSpec

# what Airflow asks of a DAG that catches up; no run by hand is before it
LONG_AGO = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class _Bounded:
    """Adds bounds to a timetable: the first and the last moment at which a run may be due."""

    first: dt.datetime = LONG_AGO
    last: dt.datetime | None = None

    def within(self, spec: ModelSpec) -> Self:
        """Give this timetable for a model: from the end of its first partition to its last's."""
        parts = spec.partitions
        found = copy(self)
        found.first = parts.step(parts.first)
        found.last = parts.step(parts.last) if parts.last else None
        return found

    def serialize(self) -> dict[str, Any]:
        content: dict[str, Any] = super().serialize()  # type: ignore[misc]
        last = self.last.isoformat() if self.last else None
        return content | {"first": self.first.isoformat(), "last": last}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Any:
        found = super().deserialize(data)  # type: ignore[misc]
        found.first = dt.datetime.fromisoformat(data["first"])
        found.last = dt.datetime.fromisoformat(data["last"]) if data["last"] else None
        return found

    def next_dagrun_info_v2(
        self, *, last_dagrun_info: DagRunInfo | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        earliest = [self.first, *filter(None, [restriction.earliest])]
        latest = [*filter(None, [self.last, restriction.latest])]
        bounded = restriction._replace(
            earliest=instance(max(earliest)), latest=instance(min(latest)) if latest else None
        )
        found: DagRunInfo | None = super().next_dagrun_info_v2(  # type: ignore[misc]
            last_dagrun_info=last_dagrun_info, restriction=bounded
        )
        return found


class PartitionTimetable(_Bounded, CronPartitionTimetable):
    """A run for each partition of a model, when its window has passed."""

    def iter_partition_dagrun_infos(
        self, *, earliest: dt.datetime, latest: dt.datetime
    ) -> Iterable[DagRunInfo]:
        """Give the runs of a backfill; partitions that the model does not have are left out."""
        first = self._get_partition_date(run_date=instance(self.first))
        last = self._get_partition_date(run_date=instance(self.last)) if self.last else None
        yield from super().iter_partition_dagrun_infos(
            earliest=max(earliest, first), latest=min(latest, last) if last else latest
        )


class RetrainTimetable(_Bounded, CronTriggerTimetable):
    """A run at each tick of a model's ``retrain.schedule``."""


def partition_timetable(spec: ModelSpec) -> PartitionTimetable:
    """Give the timetable of a model's ingest."""
    return _partitions(spec.partitions.cron, spec.partitions.key_format).within(spec)


def retrain_timetable(spec: ModelSpec) -> RetrainTimetable | None:
    """Give the timetable of a model's retrain; None if it has no schedule."""
    return _retrains(spec.retrain.schedule).within(spec) if spec.retrain.schedule else None


# Airflow describes a cron expression in words, and takes long for it: once is enough
@cache
def _partitions(cron: str, key_format: str) -> PartitionTimetable:
    return PartitionTimetable(cron, timezone="UTC", run_offset=-1, key_format=key_format)


@cache
def _retrains(cron: str) -> RetrainTimetable:
    return RetrainTimetable(cron, timezone="UTC")
