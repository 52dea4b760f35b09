"""Whether a registered version is the one that the ledger means.

Numbers begin at 1 again when a registered model is deleted in MLflow and made anew. So a version is
the incident that made it and the digest of its artifact; its number only says where to look.
"""

from __future__ import annotations

from include.retraining.errors import RegistryError
from include.retraining.registry import ledger, versions
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage


def difference(entry: ledger.Entry, found: versions.Version) -> str:
    """Say how a version is another one than an entry is about; empty if it is that one.

    What an entry from before identities were kept does not know is not compared.
    """
    start = f"version {found.number} in MLflow is another model than that of ledger entry "
    if entry.made_by is not None and found.incident_id != entry.made_by:
        by = f"incident {found.incident_id}" if found.incident_id else "no incident of ours"
        return f"{start}{entry.sequence}: it was made by {by}, that one by {entry.made_by}"
    if entry.version_sha256 is not None and found.model_sha256 != entry.version_sha256:
        return (
            f"{start}{entry.sequence}: its artifact has SHA-256 {found.model_sha256[:12] or 'none'}"
            f", that one's {entry.version_sha256[:12] or 'none'}"
        )
    return ""


def loss(spec: ModelSpec, settings: Settings, entry: ledger.Entry) -> str:
    """Say why the version of an entry is not in the registry; empty if it is.

    It was deleted, alone or with its registered model, or its number is another model's now.
    """
    found = versions.find(spec, settings, entry.version)
    if found is None:
        return (
            f"MLflow has no version {entry.version} of {spec.model} any more, that of ledger entry "
            f"{entry.sequence}"
        )
    return difference(_origin(spec, settings, entry), found)


def _origin(spec: ModelSpec, settings: Settings, entry: ledger.Entry) -> ledger.Entry:
    """Give the entry that knows which version this one is about; older rollbacks do not."""
    if entry.made_by is not None:
        return entry
    before = ledger.read(Storage.of(settings), spec.model)[: entry.sequence]
    known = (one for one in reversed(before) if one.version == entry.version)
    return next((one for one in known if one.made_by is not None), entry)


def require_made_by(spec: ModelSpec, found: versions.Version, incident_id: str) -> None:
    """Refuse a version that is not the candidate of an incident; raises RegistryError."""
    if found.incident_id != incident_id:
        raise RegistryError(
            f"{spec.model} version {found.number} in MLflow is not the candidate of incident "
            f"{incident_id}: it was made by {found.incident_id or 'no incident of ours'}. Somebody "
            "deleted the candidate; nothing was changed. Do: a new retrain, by hand with force"
        )
