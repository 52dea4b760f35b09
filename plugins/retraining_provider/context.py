"""What a running task works on: its model, its batch, its systems, and who asked."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from include.retraining.names import asset_name

log = logging.getLogger(__name__)

ACTIVE = ("queued", "running")
LONGEST_WAIT = dt.timedelta(hours=1)  # for a batch of which no active run is known
SECONDS_AHEAD = 3.0  # before the next look, for each batch that comes first
LONGEST_PAUSE = 60.0

if TYPE_CHECKING:
    from include.retraining.records import BatchRef, RetrainRequest
    from include.retraining.settings import Settings
    from include.retraining.spec import ModelSpec
    from include.retraining.storage import Storage


class Run:
    """One task of one run, as the functions of a DAG file see it; read when it is asked for.

    :param spec: the model.
    :param context: Airflow's.
    """

    def __init__(self, spec: ModelSpec, context: Any) -> None:
        self.spec = spec
        self.context = context
        self.run_id: str = context["dag_run"].run_id
        self.params = context.get("params") or {}

    @cached_property
    def settings(self) -> Settings:
        """The addresses of this run's systems, with what the connections know."""
        from retraining_provider.hooks.retraining import RetrainingHook

        settings = RetrainingHook().settings()
        # a bundle of Airflow's own knows its commit, and may have no .git to ask
        bundle = getattr(self.context.get("task_instance"), "bundle_instance", None)
        commit = bundle and (bundle.version or bundle.get_current_version())
        return settings.model_copy(update={"commit": commit}) if commit else settings

    @cached_property
    def storage(self) -> Storage:
        """The object storage of this run."""
        from include.retraining.storage import Storage

        return Storage.of(self.settings)

    @cached_property
    def batch(self) -> BatchRef:
        """The batch this run is about."""
        return batch_of(self.spec, self.context)

    @cached_property
    def at(self) -> dt.datetime:
        """When this task did what it does: for the ledger, never for a decision."""
        return dt.datetime.now(dt.UTC)

    @property
    def actor(self) -> str:
        """Who started this run, as far as Airflow knows."""
        user = getattr(self.context["dag_run"], "triggering_user_name", None)
        return user or f"Airflow, run {self.run_id}"

    @property
    def approver(self) -> str:
        """Who approved a promotion or rollback; who started the run where nobody was asked."""
        from retraining_provider.operators.alert import (
            ANSWER_KEY,
            QUESTION_TASK,
            ROLLBACK_QUESTION_TASK,
        )

        instance = self.context["task_instance"]
        answers = (
            instance.xcom_pull(task_ids=task, key=ANSWER_KEY)
            for task in (QUESTION_TASK, ROLLBACK_QUESTION_TASK)
        )
        answer = next(filter(None, answers), None)
        return f"{answer['by']}, who approved" if answer else self.actor

    def notice_hand_move(self, *, replaces_lost: bool = False) -> None:
        """Enter a champion that somebody made by hand in the ledger, and tell of it at once.

        :param replaces_lost: a champion that was deleted from MLflow is no error.
        """
        from include.retraining.registry import succession
        from include.retraining.telling import alerts
        from retraining_provider.hooks.retraining import RetrainingHook

        try:
            entry = succession.notice_hand_move(self.spec, self.settings, at=self.at)
        except succession.ChampionLost as lost:
            if not replaces_lost:
                raise
            log.warning("%s", lost)
            return
        if entry is not None:
            # kept first: a channel that takes nothing now gets it with the next alert
            alerts.keep_for_later(alerts.of_hand_move(entry), self.storage)
            channel = RetrainingHook().channel(self.spec)
            alerts.deliver_waiting(self.spec.model, self.storage, channel)

    @property
    def right_columns(self) -> list[str]:
        """The columns that a person says are right, though their feed seems to have broken."""
        return [name for name in self.params.get("right_columns") or () if name.strip()]

    @property
    def is_asked_anew(self) -> bool:
        """Is the batch judged again though it has its verdict?"""
        return bool(self.params.get("measure_anew") or self.right_columns)

    def accept_feed(self) -> None:
        """Keep a person's word on columns whose feed seems to have broken.

        :raises DataError: it is said of a column that is not, or without a reason.
        """
        from include.retraining.data import broken_feeds

        for column in self.right_columns:
            said, _ = broken_feeds.accept(
                self.spec,
                self.storage,
                partition=self.batch.partition,
                column=column,
                reason=self.params.get("reason") or "",
                actor=self.actor,
                at=self.at,
            )
            log.info("%s is right from %s on, says %s: %s", column, said.since, said.actor,
                     said.reason)  # fmt: skip

    def wait_for_turn(self) -> None:
        """Let go of the slot while batches before this one, or their retrains, are on their way.

        Who is waited for by a run that is known to be active is waited for as long as that takes;
        else for an hour at most, from when no active run is known. A paused retrain is none.

        :raises AirflowRescheduleException: it is not this batch's turn.
        """
        from airflow.sdk.exceptions import AirflowRescheduleException

        from include.retraining import shelf
        from include.retraining.monitor.turn import RunState, waits_for
        from include.retraining.names import dag_id
        from include.retraining.records import PipelineRun

        instance = self.context["task_instance"]

        def state_of(dag: str, run_id: str) -> RunState:
            if instance.get_dr_count(dag, run_ids=[run_id], states=list(ACTIVE)):
                return None if instance.get_dag(dag).is_paused else "active"
            if instance.get_dr_count(dag, run_ids=[run_id], states=["failed"]):
                return "failed"
            return "done" if instance.get_dr_count(dag, run_ids=[run_id]) else None

        def is_ingesting() -> bool:
            found = instance.get_dr_count(dag_id(self.spec.model, "ingest"), states=list(ACTIVE))
            return bool(found > 0)

        wait = waits_for(
            self.spec, self.storage, self.batch, state_of=state_of, is_ingesting=is_ingesting
        )
        if wait is None:
            return
        now, partition = dt.datetime.now(dt.UTC), self.batch.partition
        before = shelf.find_run(self.storage, self.spec.model, partition, "monitor")
        since = None if wait.is_certain else now
        if since and before and before.run_id == self.run_id and before.uncertain_since:
            since = before.uncertain_since
        if since and now - since > LONGEST_WAIT:
            log.warning("%s; it has not come within %s: goes on without", wait.why, LONGEST_WAIT)
            return
        # so that those behind this one know whom they wait for
        run = PipelineRun(
            batch=self.batch, stage="monitor", run_id=self.run_id, uncertain_since=since
        )
        if run != before:
            shelf.keep_run(self.storage, run)
        log.info("%s %s: %s", self.spec.model, partition, wait.why)
        seconds = min(SECONDS_AHEAD * wait.ahead, LONGEST_PAUSE)
        raise AirflowRescheduleException(now + dt.timedelta(seconds=seconds))

    @property
    def is_last_try(self) -> bool:
        """Does Airflow give up if this attempt fails?"""
        instance = self.context["task_instance"]
        return bool(instance.try_number > (instance.max_tries or 0))

    @contextmanager
    def spends_nothing_if_it_fails(self, request: RetrainRequest) -> Iterator[None]:
        """Give the claim of a retrain back where its task fails for good and nothing was trained.

        A task that is cleared after that takes it again.

        :param request: what was claimed.
        """
        from include.retraining.errors import RetrainingError
        from include.retraining.registry import versions
        from include.retraining.retrain import claims
        from include.retraining.retrain.incident import require_own

        require_own(claims.renew(self.storage, request, run_id=self.run_id), self.run_id)
        try:
            yield
        except Exception as error:
            is_final = isinstance(error, RetrainingError) or self.is_last_try
            incident = request.incident_id
            if is_final and not versions.version_of_incident(self.spec, self.settings, incident):
                claims.release(self.storage, request, run_id=self.run_id)
            raise

    def emit(self, noun: str, *, partitions: tuple[str, ...] = (), **facts: Any) -> None:
        """Say what the event of one of the task's assets carries.

        :param noun: of the asset, which has to be among the task's outlets.
        :param partitions: which starts one run each of what waits for it.
        """
        event = self.context["outlet_events"][Asset(asset_name(self.spec.model, noun))]
        if partitions:
            event.add_partitions(list(partitions))
        event.extra = facts


def partition_key(context: Any) -> str | None:
    """Give the partition of a run: from its form or conf, else the key it was scheduled for."""
    asked = (context.get("params") or {}).get("partition")
    return asked or getattr(context["dag_run"], "partition_key", None)


def batch_of(spec: ModelSpec, context: Any) -> BatchRef:
    """Give the batch a run is about.

    :raises DataError: the run names none.
    :raises AirflowSkipException: nobody asked for this very run, and its partition is before the
        model's first one, which may have been moved since.
    """
    from airflow.sdk.exceptions import AirflowSkipException

    from include.retraining.errors import DataError

    key = partition_key(context)
    if key is None:
        first = spec.partition_key(spec.partitions.first)
        raise DataError(
            f"this run names no partition; trigger it with {{'partition': '{first}'}} in the form"
        )
    if spec.is_before_first(key) and context["dag_run"].run_type != "manual":
        first = spec.partition_key(spec.partitions.first)
        raise AirflowSkipException(f"{key} is before the first partition of {spec.model}, {first}")
    return spec.batch_ref(key)


def retrain_cause(run: Run) -> dict[str, Any]:
    """Give what a run of the retrain DAG is about, by how it was started.

    A run that is named after the incident of its batch's verdict is the monitor's; a name that
    somebody typed gains nothing by it, since every run is held by cool-down and budget.

    :raises DataError: a run by hand gives no reason, or no batch has been published yet.
    :raises NotDue: the verdict that asked for it stands no more.
    """
    from include.retraining import shelf
    from include.retraining.data.publication import newest_published, rows_in_force
    from include.retraining.errors import DataError
    from include.retraining.records import Verdict
    from include.retraining.retrain.incident import NotDue

    spec, params, dag_run = run.spec, run.params, run.context["dag_run"]
    is_scheduled = dag_run.run_type == "scheduled"  # its str() is no value of it
    asked = {"trigger": "schedule" if is_scheduled else "manual", "force": params["force"]}
    asked["reason"] = params["reason"] or "scheduled look at the model's age"
    if params["partition"]:
        batch = spec.batch_ref(params["partition"])
        verdict = shelf.find(run.storage, Verdict, spec.model, batch.partition)
        if verdict is not None and verdict.incident_id == run.run_id:
            reason = "; ".join(verdict.reasons)
            return {"batch": batch, "trigger": "monitor", "reason": reason, "force": False}
        if dag_run.run_type == "operator_triggered" and not params["reason"]:
            raise NotDue(f"the verdict about {batch.partition} that asked for this was replaced")
    else:
        # not what came later than a scheduled run was for
        ended_by = dag_run.logical_date if is_scheduled else None
        newest = newest_published(spec, rows_in_force(spec, run.storage), ended_by=ended_by)
        if newest is None:
            raise DataError(
                f"{spec.model} has no published batch yet; run {spec.model}__ingest first"
            )
        batch = newest
    if not is_scheduled and not params["reason"]:
        raise DataError(
            "a retrain by hand needs a reason, for the ledger; trigger again and say why"
        )
    return {"batch": batch, **asked}
