"""Packs the evidence of one model version into one zip: what it is, why it is, who let it in.

Everything in it is kept anyway, in storage, MLflow and the ledger; the pack only fetches it. The
same state gives the same bytes.
"""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterator
from functools import partial

from include.retraining import shelf
from include.retraining.data.publication import published_partitions
from include.retraining.errors import RegistryError
from include.retraining.records import (
    DriftReport,
    FeatureSet,
    Record,
    TrainingSet,
    ValidationReport,
    Verdict,
)
from include.retraining.registry import anchor, ledger, server, versions
from include.retraining.settings import REPOSITORY, Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, at_once, json_bytes, sha256

REPORTS = (ValidationReport, FeatureSet, DriftReport, Verdict)
RUN_ARTIFACTS = (shelf.CARD_ARTIFACT, shelf.DUEL_ARTIFACT, shelf.IMPORTANCES_ARTIFACT)
MODEL_FILES = ("MLmodel", "requirements.txt", "python_env.yaml", "conda.yaml")
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
    version = versions.version(spec, settings, number)
    found: dict[str, bytes] = {}
    missing: list[str] = []

    def add(name: str, content: bytes | None) -> None:
        if content is None:
            missing.append(name)
        else:
            found[name] = content

    run = versions.run_data(settings, version)
    add(
        "version.json",
        json_bytes(
            {
                "model": spec.model,
                "version": number,
                "run_id": version.run_id,
                "stage": version.stage,
                "aliases": list(version.aliases),
                "tags": version.tags,
                "run": run._asdict(),
            }
        ),
    )
    for name in RUN_ARTIFACTS:
        add(name, _artifact(settings, server.run_uri(version.run_id, name)))
    for name in MODEL_FILES:
        uri = server.version_uri(spec.model, number, name)
        add(f"environment/model/{name}", _artifact(settings, uri))
    lock = REPOSITORY / "requirements.txt"
    add("environment/requirements.txt", lock.read_bytes() if lock.exists() else None)
    incident = version.incident_id
    training_set = shelf.find(storage, TrainingSet, spec.model, incident)
    keys = {
        f"incident/{posixpath.basename(key)}": key
        for key in (shelf.key_of(kind, spec.model, incident) for kind in shelf.INCIDENT_RECORDS)
    }
    for partition in _partitions(spec, storage, training_set):
        found_keys = (shelf.key_of(kind, spec.model, partition) for kind in REPORTS)
        keys |= {f"reports/{partition}/{posixpath.basename(key)}": key for key in found_keys}
    stored = at_once(partial(_stored, storage), keys.values())
    for name, content in zip(keys, stored, strict=True):
        add(name, content)
    for one in ledger.read(storage, spec.model):
        add(f"ledger/{one.sequence:06d}.json", json_bytes(one))
    add("model_file.json", json_bytes(spec))
    manifest = Manifest(
        model=spec.model,
        version=number,
        files={name: sha256(content) for name, content in sorted(found.items())},
        missing=tuple(missing),
        ledger_problems=anchor.verify(spec, settings).problems,
    )
    found["manifest.json"] = json_bytes(manifest)
    return _zip(found), manifest


def _partitions(
    spec: ModelSpec, storage: Storage, training_set: TrainingSet | None
) -> Iterator[str]:
    if training_set is None:
        return
    for batch in published_partitions(spec, storage):
        if batch.end > training_set.training_start and batch.start < training_set.duel_end:
            yield batch.partition


def _stored(storage: Storage, key: str) -> bytes | None:
    try:
        return storage.read(key)
    except FileNotFoundError:
        return None


def _artifact(settings: Settings, uri: str) -> bytes | None:
    try:
        return server.read_artifact(settings, uri)
    except RegistryError:
        return None


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
