"""The records of a model as its DAGs would have left them, without running any: for pages."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from include.retraining import shelf
from include.retraining.data.tables import Table
from include.retraining.names import incident_id
from include.retraining.records import (
    BatchRef,
    Candidate,
    DriftReport,
    FeatureDrift,
    FeatureSet,
    Finding,
    Gain,
    GateCheck,
    GateDecision,
    Harm,
    Measurement,
    Outcome,
    Performance,
    RetrainRequest,
    TrainingSet,
    ValidationReport,
    Verdict,
)
from include.retraining.records import RetrainClaim as Claim
from include.retraining.registry import ledger
from include.retraining.retrain import claims
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

PROMISE = Performance(metric="roc_auc", rows=6325, value=0.744, low=0.731, high=0.757)
AT = dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC)


def performance(value: float, width: float = 0.014) -> Performance:
    return Performance(
        metric="roc_auc", rows=5129, value=value, low=value - width, high=value + width
    )


def harm_of(partition: str, reasons: tuple[str, ...]) -> Harm:
    """Below where the first reason is about the metric."""
    has_fallen = reasons[0].startswith("roc_auc")
    return Harm(
        state="below" if has_fallen else "within", metric="roc_auc", windows=4,
        times=45 if has_fallen else 0.7, needed=20, since=partition, before=0.744,
        after=0.684 if has_fallen else 0.744,
    )  # fmt: skip


class Made:
    """Writes the records of one model, batch after batch."""

    def __init__(self, spec: ModelSpec, settings: Settings) -> None:
        self.spec = spec
        self.settings = settings
        self.storage = Storage.of(settings)
        self.moves = 0

    def batch(self, number: int) -> BatchRef:
        parts = self.spec.partitions
        return self.spec.batch_ref(self.spec.partition_key(parts.first + number * parts.length))

    def lands(
        self,
        number: int,
        *,
        refused: Sequence[str] = (),
        quarantined: int = 0,
        publish: bool = True,
        **changes: Any,
    ) -> BatchRef:
        """Validate a batch, and put it in force unless it was refused."""
        batch = self.batch(number)
        rows = 6500
        bad = rows if refused else quarantined
        report = ValidationReport(
            batch=batch,
            status="refused" if refused else "accepted",
            rows_in=rows,
            rows_good=rows - bad,
            rows_quarantined=bad,
            findings=tuple(
                Finding(
                    expectation="column must exist", column=None, severity="critical", detail=one
                )
                for one in refused
            ),
            content_sha256="ab" * 32,
            suite_sha256="cd" * 32,
            quarantine_key=shelf.quarantine_folder(self.spec.model, batch.partition),
            delivery=1,
            page_key=shelf.validation_page_key(self.spec.model, batch.partition),
        ).model_copy(update=changes)
        shelf.keep(self.storage, report)
        if not refused and publish:
            table = Table(self.storage, shelf.table_key(self.spec.model, "rows", "batch"))
            table.replace(batch.partition, pa.table({"x": [1.0]}), content="ab" * 32, order=1)
            shelf.keep(
                self.storage,
                FeatureSet(
                    batch=batch, service="flights_v1", rows=rows - bad, table_version=number,
                    file="f", sha256="ef" * 32,
                ),
            )  # fmt: skip
        return batch

    def measured(
        self,
        number: int,
        *,
        champion: int | None,
        features: Sequence[FeatureDrift] = (),
        **changes: Any,
    ) -> None:
        report = DriftReport(
            batch=self.batch(number), content_sha256="ab" * 32, champion_version=champion,
            state="calibrated", rows=6500, labelled_rows=5129, features=tuple(features),
            promise=PROMISE if champion else None,
        ).model_copy(update=changes)  # fmt: skip
        shelf.keep(self.storage, report)

    def judged(
        self, number: int, outcome: Outcome, *reasons: str, champion: int | None, **changes: Any
    ) -> Verdict:
        batch = self.batch(number)
        verdict = Verdict(
            batch=batch, outcome=outcome, reasons=reasons, content_sha256="ab" * 32,
            champion_version=champion,
            incident_id=incident_id(self.spec.model, "monitor", batch.partition, champion),
            harm=harm_of(batch.partition, reasons) if champion else None,
        ).model_copy(update=changes)  # fmt: skip
        shelf.keep(self.storage, verdict)
        return verdict

    def retrained(
        self, number: int, *, version: int, champion: int | None, passed: bool | None, why: str
    ) -> str:
        """Claim, train and judge a candidate; `passed` None leaves it without a decision."""
        batch = self.batch(number)
        incident = incident_id(self.spec.model, "monitor", batch.partition, champion)
        request = RetrainRequest(
            incident_id=incident, batch=batch, trigger="monitor", reason=why,
            champion_version=champion,
        )  # fmt: skip
        claims.take(self.storage, Claim(run_id=incident, request=request), check=lambda _: None)
        training = TrainingSet(
            incident_id=incident, model=self.spec.model, partition=batch.partition,
            table_version=number, training_rows=29990, training_start=batch.start,
            training_end=batch.end, duel_rows=6325, duel_start=batch.start, duel_end=batch.end,
            unlabelled_rows=0, sha256="ab" * 32,
        )  # fmt: skip
        shelf.keep(self.storage, training)
        candidate = Candidate(
            incident_id=incident, model=self.spec.model, version=version, run_id="r" * 32,
            training_set=training, digest="ab" * 32,
        )  # fmt: skip
        shelf.keep(self.storage, candidate)
        if passed is not None:
            decision = GateDecision(
                incident_id=incident, model=self.spec.model, partition=batch.partition,
                candidate_version=version, champion_version=champion, passed=passed,
                reasons=(why,), candidate=PROMISE, champion=PROMISE if champion else None,
                gain=Gain(rows=6325, value=0.0144, low=0.01, high=0.0189) if champion else None,
                checks=(GateCheck(name="floor", passed=True, detail="0.744, asked for is 0.530"),),
            )  # fmt: skip
            shelf.keep(self.storage, decision)
        return incident

    def moved(
        self,
        number: int,
        version: int,
        *,
        previous: int | None,
        action: ledger.Action = "promotion",
        incident: str = "",
        reason: str = "it won its duel",
        actor: str = "Airflow",
        made_by: str | None = None,
    ) -> None:
        self.moves += 1
        entry = ledger.Entry(
            sequence=0, model=self.spec.model, action=action, version=version,
            previous_version=previous, incident_id=incident or f"made-{self.moves}",
            partition=self.batch(number).partition, reason=reason, actor=actor,
            at=AT + self.moves * dt.timedelta(minutes=1), previous_hash="",
            version_incident=made_by or incident or None,
        )  # fmt: skip
        ledger.append(self.storage, entry)

    def first_model(self) -> str:
        """Two batches collected, the first version trained on the third and promoted."""
        for number in range(2):
            self.lands(number)
            self.measured(number, champion=None)
            self.judged(number, "ignore", "no model is in production yet; collecting: 4,832 of "
                        "15,000 labelled rows", champion=None)  # fmt: skip
        self.lands(2)
        self.measured(2, champion=None)
        why = "no model is in production yet, and 17,642 labelled rows are there to train on"
        self.judged(2, "retrain", why, champion=None)
        incident = self.retrained(
            2, version=1, champion=None, passed=True, why="no champion to beat"
        )
        self.moved(2, 1, previous=None, incident=incident, reason="no champion to beat")
        return incident


def column(
    name: str,
    times: float | None,
    *,
    importance: float = 0.1,
    expected: bool = False,
    reason: str = "",
) -> FeatureDrift:
    """A column at so many times its threshold; None: it could not be judged."""
    threshold = 0.05
    judged = times is not None
    return FeatureDrift(
        name=name, kind="numeric", importance=importance,
        distance=min((times or 6.0) * threshold, 1.0), p_value=0.5,
        threshold=threshold if judged else None,
        shift=0.1, shift_threshold=0.4 if judged else None,
        outline=(Measurement("location", (times or 1.0) * 2.0, 2.0 if judged else None),),
        state="calibrated" if judged else "insufficient",
        drifted=judged and times is not None and times > 1, expected=expected,
        reason=reason or ("too few windows to say what is ordinary" if not judged
                          else f"{times}x its threshold"),
    )  # fmt: skip


NAMES = ("minute_of_day", "pressure", "distance", "dewp", "carrier", "temp", "visib", "wind_speed")


def summer(made: Made, batches: int = 12) -> None:
    """A whole story: first model, drift, refusal, quarantine, retrains, rejection, rollback."""
    first = made.first_model()
    version, line = 1, [(1, first)]
    for number in range(3, batches):
        if number % 9 == 6:
            made.lands(number, refused=("column 'distance' is missing; new columns: dep_time",))
            continue
        made.lands(number, quarantined=95 if number % 9 == 3 else 0)
        hot = number % 9 in {4, 5}
        features = [
            column(
                name,
                None if name in {"temp", "dewp"} and not hot else
                (0.2 + 0.08 * place + 0.3 * abs(math.sin(number))) * (7.5 if hot and place % 2 else
                                                                    1.0),
                importance=0.12 / (place + 1),
                expected=name == "minute_of_day",
            )
            for place, name in enumerate(NAMES)
        ]  # fmt: skip
        value = 0.684 if hot else 0.75 + 0.01 * math.sin(number)
        made.measured(
            number,
            champion=version,
            champion_incident=line[-1][1],
            features=features,
            performance=performance(value),
            history=tuple(performance(0.74 + 0.01 * math.sin(n)) for n in range(3, number)),
        )
        if hot:
            why = f"roc_auc {value:.3f} (interval 0.670 to 0.698, 5,129 rows) is below the 0.744 "
            told = made.judged(
                number, "retrain", f"{why}that version {version} promised", champion=version
            )
            passed = number % 9 == 4
            incident = made.retrained(
                number, version=version + 1, champion=version, passed=passed,
                why="roc_auc 0.744, +0.0144 on the champion (95% interval +0.0100 to +0.0189)"
                if passed else "roc_auc gain +0.0035 on the champion could be chance",
            )  # fmt: skip
            assert told.incident_id == incident
            if passed:
                made.moved(number, version + 1, previous=version, incident=incident)
                version += 1
                line.append((version, incident))
        else:
            made.judged(number, "ignore", "nothing is out of the ordinary", champion=version)
    if len(line) > 1:
        back, incident = line[-2]
        made.moved(
            batches - 1, back, previous=version, action="rollback", reason="rollback drill",
            actor="admin", made_by=incident,
        )  # fmt: skip
