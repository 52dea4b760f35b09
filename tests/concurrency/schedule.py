"""Runs several actors at once, in an order that one seed decides.

Each actor is a thread that stops before each call of the storage and of MLflow. One at a time goes
on, and a generator with the seed chooses which. So the same seed gives the same order of calls
again, whatever the machine is doing. An actor may be killed where it stops: then no call of it
comes through any more, not even those with which it would clear up, and it is run again later.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import pytest

from include.retraining.data import delta_log, tables
from include.retraining.storage import Storage

STORAGE_CALLS = ("read", "write", "create", "delete", "exists", "list_versions", "_open")
LOG_CALLS = ("_read", "_list")  # on a folder, the log of a table does not go through the storage
MLFLOW_CALLS = (
    "create_model_version",
    "create_registered_model",
    "delete_model_version",
    "delete_registered_model_alias",
    "get_model_version",
    "get_registered_model",
    "search_model_versions",
    "search_runs",
    "set_model_version_tag",
    "set_registered_model_alias",
    "transition_model_version_stage",
)
SWITCHES = (0.5, 0.15, 0.04)  # how likely another one goes on: some faults need long courses
LONGEST = 120  # calls after which an actor may be killed
STEPS = 5000  # calls of all together; more is an endless loop
PATIENCE = 120  # seconds of one step


class Killed(BaseException):
    """The process of an actor is gone."""


@dataclass
class Actor:
    """One task at work; its `outcome` is what it gave or raised."""

    name: str
    work: Callable[[], Any]
    kill_after: int | None = None
    calls: int = 0
    slept: float = 0  # seconds
    outcome: Any = None
    is_over: bool = False
    is_dead: bool = False
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    stopped: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


_actor: ContextVar[Actor | None] = ContextVar("actor", default=None)


def stop(call: str) -> None:
    """Let the schedule decide who goes on; for calls outside of it, nothing."""
    actor = _actor.get()
    if actor is None:
        return
    if actor.is_dead:
        raise Killed
    _trace.append((actor.name, call))
    actor.calls += 1
    actor.stopped.release()
    actor.go.acquire()
    if actor.kill_after is not None and actor.calls > actor.kill_after:
        actor.is_dead = True
        raise Killed


_trace: list[tuple[str, str]] = []


def run_at_once(
    seed: int, work: dict[str, Callable[[], Any]]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Run all to their ends.

    Every second seed kills one of them at some call, and runs it again: at once, or when all others
    are done.

    Returns
    -------
    outcomes : dict
        What each gave or raised in the end.
    trace : list of (name, call)
        What was called, in order.
    """
    chooser = random.Random(seed)
    _trace.clear()
    actors = [Actor(name, one) for name, one in work.items()]
    switch = chooser.choice(SWITCHES)
    waits = False
    if seed % 2:
        victim = chooser.choice(actors)
        victim.kill_after = int(math.exp(chooser.uniform(0, math.log(LONGEST))))
        waits = chooser.random() < 0.5
    alive, later, outcomes = [], [], {}
    for actor in actors:
        _begin(actor)
        alive.append(actor)
    current = chooser.choice(alive)
    for _ in range(STEPS):
        current.go.release()
        assert current.stopped.acquire(timeout=PATIENCE), f"{current.name} hangs: {_trace[-3:]}"
        if current.is_over:
            alive.remove(current)
            if current.is_dead:
                _trace.append(("killed", current.name))
                again = Actor(current.name, current.work)
                (later if waits else alive).append(again)
                _begin(again)
            else:
                outcomes[current.name] = current.outcome
            if not alive:
                alive, later = later, []
            if not alive:
                return outcomes, list(_trace)
        if current not in alive or chooser.random() < switch:
            current = chooser.choice(alive)
    raise AssertionError(f"no end after {STEPS} calls: {_trace[-20:]}")


def _begin(actor: Actor) -> None:
    def body() -> None:
        _actor.set(actor)
        actor.go.acquire()
        try:
            actor.outcome = actor.work()
        except Killed:
            pass
        except Exception as error:  # noqa: BLE001 - whoever looks judges it
            actor.outcome = error
        actor.is_over = True
        actor.stopped.release()

    threading.Thread(target=body, daemon=True).start()


@contextmanager
def scheduled() -> Iterator[None]:
    """Make each call of the storage and of MLflow one at which an actor stops.

    What a process remembers of tables is each actor's own, as if each were a process.
    """
    from mlflow import MlflowClient

    with pytest.MonkeyPatch.context() as patch:
        for owner, names in (
            (Storage, STORAGE_CALLS),
            (delta_log.Log, LOG_CALLS),
            (MlflowClient, MLFLOW_CALLS),
        ):
            for name in names:
                _stop_before(patch, owner, name)
        real_sleep, real_clock, real_key = time.sleep, time.monotonic, tables.Table._cache_key

        def sleep(seconds: float) -> None:
            actor = _actor.get()
            if actor is None:
                real_sleep(seconds)
            else:  # seconds go by for who sleeps
                actor.slept += max(seconds, 1)
                stop("sleep")

        def monotonic() -> float:
            actor = _actor.get()
            return real_clock() + (actor.slept if actor else 0)

        def key(table: tables.Table) -> tuple[str, ...]:
            actor = _actor.get()
            return real_key(table) if actor is None else (*real_key(table), str(id(actor)))

        patch.setattr(time, "sleep", sleep)
        patch.setattr(time, "monotonic", monotonic)
        patch.setattr(tables.Table, "_cache_key", key)
        yield


def _stop_before(patch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    real = getattr(owner, name)

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        subject = arguments[0] if arguments and isinstance(arguments[0], str) else ""
        stop(f"{name} {subject}".strip())
        return real(self, *arguments, **named)

    patch.setattr(owner, name, call)
