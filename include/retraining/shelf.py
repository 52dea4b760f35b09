"""Where every record and every artifact is kept: one reader and one writer for each.

The only place that spells a key of the storage, or the name of an MLflow artifact. A record is kept
as JSON under a key that follows from itself::

    keep(storage, verdict)
    find(storage, Verdict, "flights", "2013-02-11")  # None where there is none
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterable
from typing import Literal, TypeVar

from include.retraining.records import (
    Candidate,
    DeliveryMapping,
    DriftReport,
    FeatureSet,
    FeedAcceptance,
    GateDecision,
    GuardAnswer,
    PipelineRun,
    QueryResult,
    Record,
    RetrainClaim,
    SkewReport,
    Sweep,
    TrainingSet,
    ValidationReport,
    Verdict,
)
from include.retraining.spec import ModelFormat
from include.retraining.storage import Storage, at_once, json_bytes

R = TypeVar("R", bound=Record)

_OF_BATCH: dict[type[Record], str] = {
    ValidationReport: "validation",
    FeatureSet: "features",
    SkewReport: "skew",
    DriftReport: "drift",
    Verdict: "verdict",
    GuardAnswer: "guard_answer",
}
_OF_INCIDENT: dict[type[Record], str] = {
    RetrainClaim: "request",
    TrainingSet: "training_set",
    Candidate: "candidate",
    GateDecision: "gate",
}
BATCH_RECORDS = tuple(_OF_BATCH)
INCIDENT_RECORDS = tuple(_OF_INCIDENT)

# artifacts of an MLflow run
PROFILE_ARTIFACT = "drift_profile.bin"
IMPORTANCES_ARTIFACT = "importances.json"
SPEC_ARTIFACT = "model_spec.json"
ENVIRONMENT_ARTIFACT = "environment.txt"
SEARCH_ARTIFACT = "search.json"
TRAINING_SET_ARTIFACT = "training_set.json"
CARD_ARTIFACT = "model_card.md"
DUEL_ARTIFACT = "duel.md"
DRIFT_REPORT_ARTIFACT = "drift_report.json"
PICTURE_ARTIFACT = "drift.png"
# in the folder of a logged model, as MLflow names it
MODEL_ARTIFACTS: dict[ModelFormat, str] = {"skops": "model.skops", "cloudpickle": "model.pkl"}


def find(storage: Storage, kind: type[R], model: str, of: str) -> R | None:
    """Give a kept record, or None.

    Parameters
    ----------
    kind : type
        One of `BATCH_RECORDS` or `INCIDENT_RECORDS`.
    of : str
        The partition, or the incident's id, that it is about.
    """
    return storage.read_record(key_of(kind, model, of), kind)


def find_all(storage: Storage, kind: type[R], model: str, of: Iterable[str]) -> list[R | None]:
    """Give kept records as `find` does, in the order of `of`; they are read side by side."""
    return at_once(lambda one: find(storage, kind, model, one), of)


def find_readable(
    storage: Storage, kind: type[R], model: str, names: Iterable[str]
) -> tuple[list[R | None], tuple[str, ...]]:
    """Read records side by side; give them in the order of `names`, and the names of damaged ones.

    A damaged record is one that is there and is none of its kind, such as a half-written one. What
    else goes wrong, such as storage that does not answer, is raised.
    """

    def look(name: str) -> R | str | None:
        try:
            return find(storage, kind, model, name)
        except ValueError:  # pydantic's ValidationError, and bytes that are no text
            return name

    found = at_once(look, names)
    return (
        [None if isinstance(one, str) else one for one in found],
        tuple(one for one in found if isinstance(one, str)),
    )


def keep(storage: Storage, record: Record) -> str:
    """Write a record in place of the one before it; give its key."""
    key = key_of(type(record), *_subject(record))
    storage.write_json(key, record)
    return key


def keep_first(storage: Storage, record: R) -> R:
    """Write a record unless there is one; give the one that is there now."""
    kind = type(record)
    key = key_of(kind, *_subject(record))
    if storage.create(key, json_bytes(record)):
        return record
    return kind.model_validate_json(storage.read(key))


def key_of(kind: type[Record], model: str, of: str) -> str:
    """Give the storage key of a record."""
    if kind in _OF_BATCH:
        return f"{report_folder(model, of)}/{_OF_BATCH[kind]}.json"
    return f"{incident_folder(model, of)}/{_OF_INCIDENT[kind]}.json"


def _subject(record: Record) -> tuple[str, str]:
    match record:
        case RetrainClaim():
            return record.request.batch.model, record.request.incident_id
        case TrainingSet():
            return record.model, record.incident_id
        case Candidate() | GateDecision():
            return record.model, record.incident_id
        case ValidationReport() | FeatureSet() | SkewReport() | DriftReport():
            return record.batch.model, record.batch.partition
        case Verdict() | GuardAnswer():
            return record.batch.model, record.batch.partition
    raise TypeError(f"no place is known for a {type(record).__name__}")


# --- what belongs to a batch ----------------------------------------------------------------------


def report_folder(model: str, partition: str) -> str:
    """Give the folder of what was found out about a batch."""
    return f"{model}/reports/partition={partition}"


def validation_page_key(model: str, partition: str) -> str:
    """Give the key of the page about a validated batch."""
    return f"{report_folder(model, partition)}/validation.html"


def expectations_key(model: str, partition: str) -> str:
    """Give the key of what Great Expectations said of a batch."""
    return f"{report_folder(model, partition)}/expectations.json"


def drift_page_key(model: str, partition: str) -> str:
    """Give the key of Evidently's page about a batch."""
    return f"{report_folder(model, partition)}/drift.html"


def shared_script_name(tool: str, release: str, content: bytes) -> str:
    """Give the name of a script: another one whenever its content is another."""
    return f"{tool}-{release}-{hashlib.sha256(content).hexdigest()[:12]}.js"


def shared_script_key(name: str) -> str:
    """Give the key of a script that the pages of all models share."""
    return f"_assets/{name}"


def shared_script_url(name: str) -> str:
    """Give its address as a batch's page sees it."""
    return f"../../../{shared_script_key(name)}"


def query_folder(model: str, partition: str) -> str:
    """Give the folder of what a batch's queries gave."""
    return f"{model}/snapshots/partition={partition}"


def query_result_key(found: QueryResult) -> str:
    """Give the key of the record of a query's result."""
    return f"{query_folder(found.batch.model, found.batch.partition)}/{found.input}.json"


def query_copy_key(model: str, partition: str, name: str, content_sha256: str) -> str:
    """Give the key of the copy of a query's result that nothing overwrites."""
    return f"{query_folder(model, partition)}/{name}-{content_sha256[:12]}.parquet"


def staged_key(model: str, partition: str, name: str, content: str) -> str:
    """Give the key of validated rows that wait to be published."""
    return f"{model}/staged/partition={partition}/{name}-{content}.parquet"


def deliveries_folder(model: str, partition: str) -> str:
    """Give the folder that numbers the deliveries of a partition."""
    return f"{report_folder(model, partition)}/deliveries"


def delivery_key(model: str, partition: str, number: int) -> str:
    """Give the key that says what the delivery of a number was."""
    return f"{deliveries_folder(model, partition)}/{number:06d}.json"


def quarantine_folder(model: str, partition: str) -> str:
    """Give the folder of what a batch left behind."""
    return f"{model}/quarantine/partition={partition}"


def delivery_folder(model: str, partition: str, content_sha256: str) -> str:
    """Give the folder that keeps a delivery as it landed."""
    return f"{quarantine_folder(model, partition)}/delivery-{content_sha256[:12]}"


def delivery_manifest_key(folder: str) -> str:
    """Give the key that says which files a kept delivery has."""
    return f"{folder}/delivery.json"


def delivery_copy_key(folder: str, name: str, file: str) -> str:
    """Give the key of the copy of one of its files."""
    return f"{folder}/{name}/{file}"


def _run_of_batch_key(model: str, partition: str, stage: str) -> str:
    return f"{report_folder(model, partition)}/{stage}_run.json"


def keep_run(storage: Storage, run: PipelineRun) -> None:
    """Say which run a batch hangs on."""
    key = _run_of_batch_key(run.batch.model, run.batch.partition, run.stage)
    storage.write_json(key, run)


def find_run(storage: Storage, model: str, partition: str, stage: str) -> PipelineRun | None:
    """Give the run a batch hangs on; None where none has waited or failed."""
    return storage.read_record(_run_of_batch_key(model, partition, stage), PipelineRun)


def find_mapping(
    storage: Storage, model: str, partition: str, content_sha256: str
) -> DeliveryMapping | None:
    """Give how a delivery is to be read, if somebody has said so."""
    folder = delivery_folder(model, partition, content_sha256)
    return storage.read_record(f"{folder}/mapping.json", DeliveryMapping)


def keep_mapping(
    storage: Storage,
    model: str,
    partition: str,
    content_sha256: str,
    mapping: DeliveryMapping | None,
) -> None:
    """Say how a delivery is to be read from now on; None: as it is."""
    key = f"{delivery_folder(model, partition, content_sha256)}/mapping.json"
    if mapping is not None:
        storage.write_json(key, mapping)
    elif storage.exists(key):
        storage.delete(key)


def partition_folders(model: str, partition: str) -> tuple[str, ...]:
    """Give the folders that are about one batch, beside its rows in the tables."""
    return (
        report_folder(model, partition),
        query_folder(model, partition),
        quarantine_folder(model, partition),
        f"{model}/staged/partition={partition}",
        f"{_left_out_folder(model)}/partition={partition}",
    )


def partitions_told_of(storage: Storage, model: str) -> set[str]:
    """Give the partitions of which there is any record; those that were refused, too."""
    roots = {folder.rsplit("/", 1)[0] for folder in partition_folders(model, "any")}
    found = (key.split("/partition=", 1) for root in roots for key in storage.list(root))
    return {names[1].split("/", 1)[0] for names in found if len(names) > 1}


def _left_out_folder(model: str) -> str:
    return f"{model}/left_out"


def broken_key(model: str, partition: str) -> str:
    """Give the key that says how the feed of a batch broke, so that it is left out of training."""
    return f"{_left_out_folder(model)}/partition={partition}/broken_feed.json"


def broken_partitions(storage: Storage, model: str) -> tuple[str, ...]:
    """Give the partitions that are left out of training, oldest first."""
    keys = storage.list(_left_out_folder(model))
    return tuple(sorted(key.split("/partition=", 1)[1].split("/", 1)[0] for key in keys))


def acceptance_folder(model: str) -> str:
    """Give the folder of what people said of broken feeds."""
    return f"{model}/feed/accepted"


def acceptance_key(said: FeedAcceptance) -> str:
    """Give the key of what a person said; a column's name may be any text."""
    column = hashlib.sha256(said.column.encode()).hexdigest()[:12]
    kind = said.kind.replace(" ", "-")
    return f"{acceptance_folder(said.model)}/{said.since}-{kind}-{column}.json"


def _sweep_key(model: str) -> str:
    return f"{model}/sweep.json"


def find_sweep(storage: Storage, model: str) -> Sweep | None:
    """Give the last sweep of a model, or None."""
    return storage.read_record(_sweep_key(model), Sweep)


def keep_sweep(storage: Storage, done: Sweep) -> None:
    """Say that a sweep was done."""
    storage.write_json(_sweep_key(done.batch.model), done)


# --- tables ---------------------------------------------------------------------------------------

TableKind = Literal["rows", "quarantine", "features"]


def table_key(model: str, kind: TableKind, name: str) -> str:
    """Give the folder of a table.

    Parameters
    ----------
    kind : str
        ``rows`` and ``quarantine``, by input; ``features``, by table.
    """
    return f"{model}/tables/{kind}/{name}"


def old_layout_folder(model: str) -> str:
    """Give the folder in which release 0.1 kept the rows of a model."""
    return f"{model}/validated"


def joined_key(model: str) -> str:
    """Give the folder of the table of rows with their features."""
    return f"{model}/tables/joined"


# --- what belongs to a retrain --------------------------------------------------------------------


def incident_folder(model: str, incident_id: str) -> str:
    """Give the folder of what one retrain made."""
    return f"{model}/retrain/incident={incident_id}"


def run_key(model: str, run_id: str) -> str:
    """Give the key that says which incident a run is about."""
    return f"{model}/retrain/runs/{_short(run_id)}.json"


def _claims_folder(model: str) -> str:
    return f"{model}/retrain/claims"


def claim_key(model: str, number: int) -> str:
    """Give the key of the claim of a number."""
    return f"{_claims_folder(model)}/{number:06d}.json"


def claimed_key(model: str, number: int, end: dt.datetime, incident_id: str) -> str:
    """Give the key whose name says what the claim of a number is about."""
    moment = end.astimezone(dt.UTC)
    return f"{_claims_folder(model)}/{number:06d}--{moment:%Y-%m-%dT%H}--{incident_id}.json"


def released_key(model: str, number: int) -> str:
    """Give the key that says that the claim of a number counts no more."""
    return f"{_claims_folder(model)}/{number:06d}--released.json"


def claims_in(
    storage: Storage, model: str
) -> tuple[set[int], dict[int, tuple[dt.datetime, str]], set[int]]:
    """Give the numbers of all claims; end of the batch and incident of those named; the released.

    Takes one listing.
    """
    numbers, named, released = set(), {}, set()
    for key in storage.list(_claims_folder(model)):
        number, *about = key.rpartition("/")[2].removesuffix(".json").split("--", 2)
        if not number.isdecimal():  # nothing of ours
            continue
        if not about:
            numbers.add(int(number))
        elif about == ["released"]:
            released.add(int(number))
        else:
            end = dt.datetime.strptime(about[0], "%Y-%m-%dT%H").replace(tzinfo=dt.UTC)
            named[int(number)] = (end, about[1])
    return numbers, named, released


def day_folder(at: dt.datetime) -> str:
    """Give the folder that numbers the retrains of all models within a day."""
    return f"_retrains/day={at.astimezone(dt.UTC):%Y-%m-%d}"


def day_key(at: dt.datetime, number: int) -> str:
    """Give the key of the retrain of a number within a day."""
    return f"{day_folder(at)}/{number:06d}.json"


def is_numbered(key: str) -> bool:
    """Say whether a key ends in a number, as those of `number_of` do."""
    return key.rpartition("/")[2].removesuffix(".json").isdecimal()


def number_of(key: str) -> int:
    """Give the number that a ledger's entry, or a retrain of a day, has in its key."""
    return int(key.rpartition("/")[2].removesuffix(".json"))


# --- ledger, alerts, definitions ------------------------------------------------------------------


def ledger_folder(model: str) -> str:
    """Give the folder of a model's ledger."""
    return f"{model}/ledger"


def ledger_entry_key(model: str, sequence: int) -> str:
    """Give the key of one entry."""
    return f"{ledger_folder(model)}/{sequence:06d}.json"


def is_ledger_entry(key: str) -> bool:
    """Is this the key of an entry, and of nothing else that a ledger's folder has?"""
    return re.fullmatch(r".*/ledger/\d{6,}\.json", key) is not None


def ledger_head_key(model: str) -> str:
    """Give the key that says how far a ledger reached."""
    return f"{ledger_folder(model)}/head.json"


def ledger_mark_key(model: str, sequence: int, mark: str) -> str:
    """Give the key that says that the aliases have followed an entry, or its maker is done."""
    return f"{ledger_folder(model)}/{mark}/{sequence:06d}.json"


def ledger_intent_key(model: str, incident_id: str, action: str) -> str:
    """Give the key that says that an entry is about to be made, or was."""
    name = hashlib.sha256(f"{action}|{incident_id}".encode()).hexdigest()[:32]
    return f"{ledger_folder(model)}/intents/{name}.json"


def thread_key(model: str, thread: str, name: str) -> str:
    """Give the key of something about a thread: an alert's id, or how its opening goes."""
    folder = thread if re.fullmatch(r"[\w.-]{1,100}", thread, re.ASCII) else _short(thread)
    return f"{model}/alerts/thread={folder}/{name}.json"


def opening_keys(model: str, thread: str, channel: str) -> tuple[str, str]:
    """Give the keys that say which alert opens a thread on a channel, and with which message."""
    place = _short(channel)
    return (
        thread_key(model, thread, f"opening-{place}"),
        thread_key(model, thread, f"opened-{place}"),
    )


def standing_key(model: str, thread: str, subject: str) -> str:
    """Give the key that says what a thread told last about a subject."""
    return thread_key(model, thread, f"standing-{subject}")


def waiting_folder(model: str) -> str:
    """Give the folder of alerts that no channel has taken yet."""
    return f"{model}/alerts/waiting"


def waiting_key(model: str, alert_id: str) -> str:
    """Give the key of an alert that no channel has taken yet."""
    return f"{waiting_folder(model)}/{alert_id}.json"


def message_key(message: str) -> str:
    """Give the key of a message in the folder that stands for Slack."""
    return f"{message}.json"


def definitions_key(model: str) -> str:
    """Give the key that says which feature definitions are registered."""
    return f"{model}/definitions/applied.json"


def definitions_lock_key(model: str) -> str:
    """Give the key that says who is about to register feature definitions."""
    return f"{model}/definitions/applying.json"


def online_key(model: str) -> str:
    """Give the key that says up to when the online store knows the features."""
    return f"{model}/definitions/online.json"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
