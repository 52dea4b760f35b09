"""Answers that take a while: each is made once at a time, kept a moment, and waited for briefly.

A browser asks again and again, and a storage that is down answers after minutes: neither may hold
the threads of the API server.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Answer(NamedTuple, Generic[T]):
    """An answer, since when it is known, by `time.monotonic`, and the CPU seconds it took."""

    value: T
    at: float
    cpu_seconds: float


class Answers(Generic[T]):
    """Keeps the newest answer to each question.

    :param threads: how many are made side by side.
    :param fresh_seconds: for so long at least an answer is given again without asking; longer where
        making all that is asked for would take more than a tenth of a core.
    :param stale_seconds: for so long it is given again, while a new one is being made.
    """

    MOST = 1000  # answers that are kept
    SHARE = 0.1  # of a core, for a browser that asks again and again

    def __init__(self, *, threads: int, fresh_seconds: float, stale_seconds: float) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="models-page")
        self._fresh_seconds = fresh_seconds
        self._stale_seconds = stale_seconds
        self._lock = threading.Lock()
        self._known: dict[Hashable, Answer[T]] = {}
        self._making: dict[Hashable, Future[T]] = {}

    def ask(
        self, questions: Mapping[Hashable, Callable[[], T]], *, seconds: float
    ) -> dict[Hashable, T]:
        """Give the answers that are known within some seconds; those still being made are left out.

        What making an answer raises is raised here, and not kept.

        :param questions: by its key, what makes each answer.
        """
        now = time.monotonic()
        there = {key: self._known[key] for key in questions if key in self._known}
        cpu_seconds = sum(answer.cpu_seconds for answer in there.values())
        fresh_seconds = max(self._fresh_seconds, cpu_seconds / self.SHARE)
        known: dict[Hashable, T] = {}
        waited_for: dict[Hashable, Future[T]] = {}
        for key, make in questions.items():
            answer = there.get(key)
            is_fresh = answer is not None and now - answer.at <= fresh_seconds
            making = None if is_fresh else self._make(key, make)
            if answer is not None and now - answer.at <= max(fresh_seconds, self._stale_seconds):
                known[key] = answer.value
            elif making is not None:
                waited_for[key] = making
        done = wait(waited_for.values(), timeout=seconds).done
        return known | {
            key: future.result() for key, future in waited_for.items() if future in done
        }

    def _make(self, key: Hashable, make: Callable[[], T]) -> Future[T]:
        """Begin to make an answer, unless it is being made."""
        with self._lock:
            making = self._making.get(key)
            if making is None:
                making = self._threads.submit(self._keep, key, make)
                self._making[key] = making
        return making

    def _keep(self, key: Hashable, make: Callable[[], T]) -> T:
        began = time.thread_time()
        try:
            value = make()
            with self._lock:
                self._known.pop(key, None)
                self._known[key] = Answer(
                    value, time.monotonic(), cpu_seconds=time.thread_time() - began
                )
                while len(self._known) > self.MOST:
                    del self._known[next(iter(self._known))]
            return value
        finally:
            with self._lock:
                self._making.pop(key, None)
