"""A model in the middle of its life, what can happen to it, and what must be true after it.

Version 2 is champion after 1; 3 and 4 have passed their gates against it. Of the second week the
first delivery is in force; the second one, with five bad rows, is validated and not published.
"""

from __future__ import annotations

import datetime as dt
import itertools
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from include.demo import flights_feed
from include.retraining import shelf
from include.retraining.data import publication, quarantine, tables, validation
from include.retraining.errors import DataError, RegistryError, Superseded
from include.retraining.features import feature_sets
from include.retraining.learning.estimator import build_pipeline
from include.retraining.names import CHAMPION
from include.retraining.records import (
    DeliveryMapping,
    GateDecision,
    Performance,
    Promotion,
    TrainingSet,
    ValidationReport,
)
from include.retraining.registry import ledger, server, succession, versions
from include.retraining.retrain import claims, incident
from include.retraining.retrain.incident import NotDue
from include.retraining.settings import Settings
from include.retraining.storage import Storage
from tests.concurrency.schedule import run_at_once
from tests.unit.pipeline import copy_home, small_spec

SPEC = small_spec()
MODEL = SPEC.model
WEEK = SPEC.batch_ref("2013-01-14")
AT = dt.datetime(2013, 2, 4, tzinfo=dt.UTC)
ROWS = 600  # the suite wants 500
BAD = 5
DATABASES = ("mlflow.db", "feast-registry.db", "feast-online.db")
PROMISE = Performance(metric="roc_auc", rows=5000, value=0.7, low=0.68, high=0.72)
NEWARK = DeliveryMapping(replacements={"origin": {"Newark": "EWR"}}, reason="spelt out")
KINDS = (
    "promote",
    "rollback",
    "hand",
    "claim",
    "publish",
    "materialize",
    "replay_quarantine",
    "redelivery",
)
Work = Callable[[], Any]

# what an actor may come to, where another was first: nothing was changed, and it says so
REFUSALS = (RegistryError, NotDue, Superseded)


@cache
def delivered(number: int, partition: str = WEEK.partition) -> pd.DataFrame:
    """Give the rows of a delivery; their distances say which one. An even one has bad rows."""
    batch = SPEC.batch_ref(partition)
    frame = flights_feed.flights_of(batch)
    frame = frame.iloc[:: len(frame) // ROWS].head(ROWS).reset_index(drop=True)
    frame["distance"] = frame["distance"].astype(float) + number / 10
    if number % 2 == 0:
        frame.loc[[3, 5, 8], "origin"] = "Newark"
        frame.loc[[10, 11], "distance"] = -number
    return frame


def land(storage: Storage, number: int) -> None:
    flights_feed.land(storage, WEEK, delivered(number))


# --- the world ------------------------------------------------------------------------------------


def fill(empty: Path, home: Path) -> None:
    """Make the home that each seed begins with."""
    settings = copy_home(empty, home)
    storage = Storage.of(settings)
    first = SPEC.batch_ref("2013-01-07")
    flights_feed.land(storage, first, delivered(1, first.partition))
    land(storage, 1)
    for batch in (first, WEEK):
        report = validation.validate_batch(SPEC, storage, batch)
        publication.publish_batch(SPEC, storage, report)
        feature_sets.materialize(SPEC, settings, batch)
    land(storage, 2)
    validation.validate_batch(SPEC, storage, WEEK)
    for number in (1, 2, 3, 4):
        register(settings, f"incident-{number}")
    succession.promote(SPEC, settings, decision(1, None), actor="test", at=AT)
    succession.promote(SPEC, settings, decision(2, 1), actor="test", at=AT)


def register(settings: Settings, incident_id: str) -> int:
    """Register a version that an incident has made."""
    names = SPEC.features.names
    numeric = SPEC.features.numeric
    frame = pd.DataFrame(
        {one: np.arange(20.0) if one in numeric else ["a", "b"] * 10 for one in names}
    )
    about = versions.Registration(
        run_name=incident_id, run_tags={}, version_tags={}, params={}, metrics={}, series={},
        files={}, data_source="file:///nowhere", data_sha256="ab" * 32,
    )  # fmt: skip
    learned_from = TrainingSet.model_construct(training_end=dt.datetime(2013, 1, 7, tzinfo=dt.UTC))
    found = versions.register(
        SPEC, settings, build_pipeline(SPEC).fit(frame, np.arange(20) % 2), frame,
        incident_id=incident_id, training_set=learned_from, about=about,
    )  # fmt: skip
    return found.number


def decision(version: int, champion: int | None) -> GateDecision:
    return GateDecision(
        incident_id=f"incident-{version}",
        model=MODEL,
        partition=WEEK.partition,
        candidate_version=version,
        champion_version=champion,
        passed=True,
        reasons=("better",),
        candidate=PROMISE,
    )


class World:
    """The same home for each seed, set back to its beginning."""

    def __init__(self, source: Path, home: Path, storage_url: str = "") -> None:
        self.source = source
        self.settings = copy_home(source, home)
        if storage_url:
            self.settings = Settings(home=home, storage_url=storage_url)
        self.storage = Storage.of(self.settings)
        self._copy_storage()
        self.incidents: dict[str, str] = {}  # which each of the two is about
        self.databases = {}
        for name in DATABASES:  # as copied: they say where this home is
            self.databases[name] = sqlite3.connect(":memory:", check_same_thread=False)
            with sqlite3.connect(home / name) as here:
                here.backup(self.databases[name])
            here.close()
        self.waiting = self.storage.read_record(
            shelf.key_of(ValidationReport, MODEL, WEEK.partition), ValidationReport
        )

    def reset(self) -> None:
        tables._opened.clear()
        versions._load.cache_clear()
        home = self.settings.home
        self._copy_storage()
        for name, kept in self.databases.items():
            there = sqlite3.connect(home / name)
            kept.backup(there)
            there.close()

    def _copy_storage(self) -> None:
        if self.storage.is_local:
            folder = self.settings.home / "storage"
            shutil.rmtree(folder)
            shutil.copytree(self.source / "storage", folder)
            return
        for key in self.storage.list(""):
            self.storage.delete(key)
        source = Storage((self.source / "storage").as_uri())
        for key in source.list(""):
            self.storage.write(key, source.read(key))

    # --- what may happen --------------------------------------------------------------------------

    def work(self, kind: str, number: int, chooser: random.Random) -> Work:
        """Give one of the things that may happen; `number` is 0 or 1: which of the two it is.

        The second may be a twin of the first, or another of the same kind.
        """
        is_twin = chooser.random() < 0.5
        other = 0 if is_twin else number
        settings, storage = self.settings, self.storage
        match kind:
            case "promote":
                self.incidents[f"{kind} {number}"] = f"incident-{3 + other}"
                return lambda: succession.promote(
                    SPEC, settings, decision(3 + other, 2), actor="test", at=AT
                )
            case "rollback":
                self.incidents[f"{kind} {number}"] = f"r{other}"
                return lambda: succession.rollback(
                    SPEC, settings, reason="worse", actor="test", request_id=f"r{other}", at=AT
                )
            case "hand":
                return partial(self.move_by_hand, (1, 4)[number] if not is_twin else 3)
            case "claim":
                return partial(self.claim, f"run {other}", chooser.choice(("manual", "monitor")))
            case "register":  # an attempt that was given up, and the next one
                return partial(self.register, "incident-5")
            case "publish":
                return lambda: publication.publish_batch(SPEC, storage, self.waiting)
            case "materialize":
                return self.materialize
            case "replay_quarantine":
                return partial(self.replay, chooser.choice((NEWARK, None)))
            case "redelivery":
                return partial(self.redeliver, 3 + (number if not is_twin else 0))
        raise ValueError(kind)

    def move_by_hand(self, version: int) -> None:
        server.client(self.settings).set_registered_model_alias(MODEL, CHAMPION, str(version))

    def claim(self, run_id: str, trigger: str) -> Any:
        return incident.open_incident(
            SPEC, self.settings, batch=SPEC.batch_ref("2013-01-28"), trigger=trigger,
            reason="a test", run_id=run_id, at=AT,
        )  # fmt: skip

    def register(self, incident_id: str) -> int:
        found = versions.keep_first(SPEC, self.settings, incident_id)
        return found.number if found else register(self.settings, incident_id)

    def materialize(self) -> None:
        feature_sets.materialize(SPEC, self.settings, WEEK)
        feature_sets.refresh_later(SPEC, self.settings, WEEK)

    def replay(self, mapping: DeliveryMapping | None) -> bool:
        report = quarantine.revalidate_batch(SPEC, self.storage, WEEK, mapping=mapping)
        return publication.publish_batch(SPEC, self.storage, report)

    def redeliver(self, number: int) -> bool:
        land(self.storage, number)
        report = validation.validate_batch(SPEC, self.storage, WEEK)
        return publication.publish_batch(SPEC, self.storage, report)

    # --- what must be true ------------------------------------------------------------------------

    def trouble(self, seed: int, pair: Sequence[str]) -> list[str]:
        """Let two things happen at once, and give what is wrong after it."""
        outcomes, trace = self._run(seed, pair)
        # a replay beside a redelivery: its delivery is not there any more, and it says so
        allowed = REFUSALS
        if set(pair) == {"replay_quarantine", "redelivery"}:
            allowed = (*REFUSALS, DataError)
        return [
            *(
                f"{name}: {type(one).__name__}: {one}"
                for name, one in outcomes.items()
                if isinstance(one, Exception) and not isinstance(one, allowed)
            ),
            *self._champion(pair, trace),
            *self._ledger(pair, outcomes),
            *self._claims(pair, outcomes, trace),
            *self._versions(),
            *(self._rows(pair, outcomes) if set(pair) & {*PUBLISHING, "materialize"} else ()),
        ]

    def order(self, seed: int, pair: Sequence[str]) -> list[tuple[str, str]]:
        """Give the order of calls of two things at once."""
        return self._run(seed, pair)[1]

    def _run(self, seed: int, pair: Sequence[str]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        self.reset()
        self.incidents.clear()
        chooser = random.Random(f"{seed} {pair}")
        work = {f"{kind} {n}": self.work(kind, n, chooser) for n, kind in enumerate(pair)}
        return run_at_once(seed, work)

    def _champion(self, pair: Sequence[str], trace: Sequence[tuple[str, str]]) -> Iterator[str]:
        """The alias is where the ledger is, the stages follow, a hand is told and never made up."""
        succession.notice_hand_move(SPEC, self.settings, at=AT)
        if succession.notice_hand_move(SPEC, self.settings, at=AT) is not None:
            yield "the look after the last one notices a hand"
        entries = ledger.read(self.storage, MODEL)
        champion, alias = entries[-1].version, server.aliases(SPEC, self.settings).get(CHAMPION)
        if alias != champion:
            yield f"alias at {alias}, ledger at {champion}"
        told = [one.version for one in entries if one.action == "by_hand"]
        if told and "hand" not in pair:
            yield f"false by_hand {told}"
        movers = {name for name, call in trace if call == f"set_registered_model_alias {MODEL}"}
        is_hand_alone = bool(movers) and all(name.startswith("hand") for name in movers)
        if is_hand_alone and alias != 2 and not told:
            yield "a hand that nobody was told of"
        for number in (1, 2, 3, 4):
            stage = versions.version(SPEC, self.settings, number).stage
            if not told and (number == champion) != (stage == "Production"):
                yield f"version {number} is in stage {stage}, champion is {champion}"

    def _ledger(self, pair: Sequence[str], outcomes: dict[str, Any]) -> Iterator[str]:
        """The chain holds, and has what happened, each thing once, and nothing else."""
        entries = ledger.read(self.storage, MODEL)
        yield from ledger.verify(self.storage, MODEL, entries)
        made = [(one.action, one.incident_id) for one in entries]
        if len(made) != len(set(made)):
            yield f"twice: {made}"
        for before, entry in itertools.pairwise(entries):
            # a promotion of what a hand has crowned already is measured against the one before
            was_by_hand = (before.action, before.version) == ("by_hand", entry.version)
            if entry.previous_version != before.version and not was_by_hand:
                yield f"{entry.action} {entry.version} is not after {before.version}"
        for entry in entries[2:]:
            kind = {"promotion": "promote", "rollback": "rollback", "by_hand": "hand"}
            if kind[entry.action] not in pair:
                yield f"a {entry.action} by nobody"
            if entry.action == "promotion" and entry.previous_version != 2:
                yield f"promoted against {entry.previous_version}, measured against 2"
        yield from self._told(entries, outcomes)

    def _told(self, entries: Sequence[ledger.Entry], outcomes: dict[str, Any]) -> Iterator[str]:
        """What each was told is what the ledger has."""
        for name, outcome in outcomes.items():
            found = [one for one in entries if one.incident_id == self.incidents.get(name)]
            if isinstance(outcome, Promotion) and outcome.ledger_sequence not in {
                one.sequence for one in found
            }:
                yield f"{name} is not in the ledger: {outcome}"
            twins = [one for one in outcomes.values() if isinstance(one, Promotion)]
            was_refused = isinstance(outcome, RegistryError) and found and not twins
            # who was killed and is told that it is done is told the truth
            if was_refused and f"(ledger entry {found[0].sequence})" not in str(outcome):
                yield f"{name} made entry {found[0].sequence}, and was told {outcome}"

    def _claims(
        self, pair: Sequence[str], outcomes: dict[str, Any], trace: Sequence[tuple[str, str]]
    ) -> Iterator[str]:
        """One retrain of one batch, and whoever has it was told so."""
        standing = {one.incident_id for one in claims.claimed(self.storage, MODEL)}
        got = {
            one.incident_id
            for name, one in outcomes.items()
            if name.startswith("claim") and not isinstance(one, Exception)
        }
        if len(standing) != ("claim" in pair) or got != standing:
            yield f"claimed is {standing}, told were {got}"
        counted = len(self.storage.list(shelf.day_folder(AT)))
        # who was killed between the two is counted for an hour
        if counted - len(standing) not in {0, int("killed" in dict(trace))}:
            yield f"{counted} retrains counted, {len(standing)} claimed"

    def _versions(self) -> Iterator[str]:
        """One version per incident."""
        made = Counter(one.incident_id for one in versions.all_versions(SPEC, self.settings))
        yield from (f"{count} versions of {name}" for name, count in made.items() if count > 1)

    def _rows(self, pair: Sequence[str], outcomes: dict[str, Any]) -> Iterator[str]:
        """The newest delivery is in force; all that landed is good or quarantined, unchanged."""
        found = publication.rows_in_force(SPEC, self.storage)
        part = found.parts[WEEK.partition]
        rows = found.read([WEEK.partition]).to_pandas()
        left = publication.quarantined_rows(SPEC, self.storage)
        left_part = left.parts.get(WEEK.partition)
        if left_part is not None and left_part.rows:
            if (left_part.order, left_part.content) != (part.order, part.content):
                yield f"quarantine is of {left_part.order}, rows are of {part.order}"
            rows = pd.concat([rows, left.read([WEEK.partition]).to_pandas()])
        newest = len(self.storage.list(shelf.deliveries_folder(MODEL, WEEK.partition)))
        if {name.split()[0] for name in outcomes} & PUBLISHING and part.order != newest:
            yield f"delivery {part.order} is in force, the newest is {newest}"
        marks = {round(float(one) % 1 * 10) for one in rows["distance"]} - {0}
        if len(marks) != 1:
            yield f"rows of deliveries {marks} in one batch"
            return
        key = flights_feed.BATCH_KEY.format(partition=WEEK.partition)
        landed = self.storage.read_table(key, ["distance"]).to_pandas()["distance"]
        last = round(float(landed[0]) % 1 * 10)
        if "redelivery" in pair and marks != {last}:
            yield f"delivery {marks} is in force, {last} landed last"
        whole = delivered(marks.pop())
        if len(rows) != len(whole):
            yield f"{len(whole)} landed, {len(rows)} are good or quarantined"
            return
        for column in SPEC.source.columns:
            if _texts(rows, column) != _texts(whole, column):
                yield f"values of {column} are not those that landed"
        self.materialize()
        if not feature_sets.is_current(SPEC, self.storage, WEEK):
            yield "features are not those of the rows in force"


PUBLISHING = {"publish", "replay_quarantine", "redelivery"}


def _texts(rows: pd.DataFrame, column: str) -> list[str]:
    """Give the values of a column by the key of their rows, however they are typed."""
    rows = rows.assign(origin=rows["origin"].replace("Newark", "EWR"))  # as a mapping has it
    rows = rows.assign(sched_dep=pd.to_datetime(rows["sched_dep"], utc=True))
    values = rows.sort_values(list(SPEC.source.key), kind="stable")[column]
    if column in {"sched_dep", "carrier", "origin", "dest", "tailnum"}:
        return values.astype(str).tolist()
    return values.astype(float).round(6).astype(str).tolist()
