"""Packs the evidence of one model version into one zip: what it is, why it is, who let it in.

Everything in it is kept anyway, in storage, MLflow and the ledger; the pack only fetches it. The
same state gives the same bytes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from include.retraining.features import feature_sets as features
from include.retraining.names import incident_key, storage_key
from include.retraining.records import Record, TrainingSet
from include.retraining.registry import ledger
from include.retraining.registry import succession as registry
from include.retraining.settings import REPOSITORY, Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, json_bytes, sha256

RUN_ARTIFACTS = ("model_card.md", "duel.md", "importances.json")
MODEL_FILES = ("MLmodel", "requirements.txt", "python_env.yaml", "conda.yaml")
RECORDS = ("request", "training_set", "candidate", "gate")
REPORTS = ("validation", "features", "drift", "verdict")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's first moment: packing twice gives the same bytes


class Manifest(Record):
    """What is in a pack: each file's SHA-256, what was not found, what is wrong with the ledger."""

    model: str
    version: int
    files: dict[str, str]
    missing: tuple[str, ...]
    ledger_problems: tuple[str, ...]


def audit_pack(spec: ModelSpec, settings: Settings, number: int) -> tuple[bytes, Manifest]:
    """Give the zip of one version, and its manifest.

    Holds the version with its tags, parameters and metrics; model card and duel; the records of its
    incident; validation and drift reports of every batch it was trained or judged on; the whole
    ledger, without which its chain cannot be verified; the environment. Not the data nor the model:
    their digests are in the records.

    Raises
    ------
    RegistryError
        There is no such version.
    """
    storage = Storage.of(settings)
    version = registry.version(spec, settings, number)
    found: dict[str, bytes] = {}
    missing: list[str] = []

    def add(name: str, content: bytes | None) -> None:
        if content is None:
            missing.append(name)
        else:
            found[name] = content

    api = registry.client(settings)
    run = api.get_run(version.run_id)
    entry = api.get_model_version(spec.model, str(number))
    add(
        "version.json",
        json_bytes(
            {
                "model": spec.model,
                "version": number,
                "run_id": version.run_id,
                "stage": version.stage,
                "aliases": sorted(entry.aliases),
                "tags": dict(entry.tags),
                "run": {"tags": run.data.tags, "params": run.data.params}
                | {"metrics": run.data.metrics},
            }
        ),
    )
    for name in RUN_ARTIFACTS:
        add(name, _artifact(f"runs:/{version.run_id}/{name}"))
    for name in MODEL_FILES:
        add(f"environment/model/{name}", _artifact(f"models:/{spec.model}/{number}/{name}"))
    lock = REPOSITORY / "requirements.txt"
    add("environment/requirements.txt", lock.read_bytes() if lock.exists() else None)
    folder = incident_key(spec.model, version.incident_id)
    for name in RECORDS:
        add(f"incident/{name}.json", _stored(storage, f"{folder}/{name}.json"))
    training_set = storage.read_record(f"{folder}/training_set.json", TrainingSet)
    for partition in _partitions(spec, storage, training_set):
        for name in REPORTS:
            key = f"{storage_key(spec.model, 'reports', partition)}/{name}.json"
            add(f"reports/{partition}/{name}.json", _stored(storage, key))
    for one in ledger.read(storage, spec.model):
        add(f"ledger/{one.sequence:06d}.json", json_bytes(one))
    add("model_file.json", json_bytes(spec))
    manifest = Manifest(
        model=spec.model,
        version=number,
        files={name: sha256(content) for name, content in sorted(found.items())},
        missing=tuple(missing),
        ledger_problems=tuple(ledger.verify(storage, spec.model)),
    )
    found["manifest.json"] = json_bytes(manifest)
    return _zip(found), manifest


def _partitions(
    spec: ModelSpec, storage: Storage, training_set: TrainingSet | None
) -> Iterator[str]:
    if training_set is None:
        return
    for batch in features.published_partitions(spec, storage):
        if batch.end > training_set.training_start and batch.start < training_set.duel_end:
            yield batch.partition


def _stored(storage: Storage, key: str) -> bytes | None:
    try:
        return storage.read(key)
    except FileNotFoundError:
        return None


def _artifact(uri: str) -> bytes | None:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return Path(mlflow.artifacts.download_artifacts(uri)).read_bytes()
    except (MlflowException, OSError):
        return None


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
