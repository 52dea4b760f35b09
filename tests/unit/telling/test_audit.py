from __future__ import annotations

import hashlib
import io
import json
import zipfile

import pytest

from include.retraining.__main__ import main
from include.retraining.errors import RegistryError
from include.retraining.registry import ledger, server
from include.retraining.settings import Settings
from include.retraining.storage import Storage, sha256
from include.retraining.telling import audit, model_card
from tests.unit.registry.test_succession import SPEC, promote
from tests.unit.retrain.test_gate import crown


def unpacked(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_pack_holds_the_evidence_of_its_version(trained: Settings):
    crown(trained, 1, None)
    crown(trained, 2, 1)
    model_card.publish(SPEC, trained, 2)
    content, manifest = audit.audit_pack(SPEC, trained, 2)
    files = unpacked(content)
    assert {
        "version.json",
        "model_card.md",
        "duel.md",
        "incident/request.json",
        "incident/training_set.json",
        "incident/gate.json",
        "reports/2013-01-07/validation.json",
        "reports/2013-01-21/validation.json",
        "ledger/000002.json",
        "environment/requirements.txt",
        "environment/model/requirements.txt",
        "model_file.json",
    } <= set(files)
    assert not any(name.startswith("reports/2013-01-28") for name in files)  # came later
    assert manifest.files == {
        name: sha256(data) for name, data in files.items() if name != "manifest.json"
    }
    assert json.loads(files["manifest.json"]) == manifest.model_dump(mode="json")
    assert json.loads(files["version.json"])["aliases"] == ["champion"]
    assert b"gain on the champion" in files["duel.md"]
    assert manifest.ledger_problems == ()
    # nobody monitored these batches: said, not left out
    assert "reports/2013-01-21/drift.json" in manifest.missing


def test_packing_twice_gives_the_same_bytes(trained: Settings):
    digests = {hashlib.sha256(audit.audit_pack(SPEC, trained, 1)[0]).hexdigest() for _ in "ab"}
    assert len(digests) == 1


def test_ledger_of_a_pack_can_be_verified_from_the_pack_alone(trained: Settings, tmp_path):
    promote(trained, 1, None)
    promote(trained, 2, 1)
    content, _ = audit.audit_pack(SPEC, trained, 1)
    copy = Storage((tmp_path / "copy").as_uri())
    for name, data in unpacked(content).items():
        if name.startswith("ledger/"):
            copy.write(f"flights/{name}", data)
    assert ledger.verify(copy, "flights") == []
    assert len(ledger.read(copy, "flights")) == 2


def test_version_that_is_not_there_has_no_pack(trained: Settings):
    with pytest.raises(RegistryError, match="no version 9"):
        audit.audit_pack(SPEC, trained, 9)


@pytest.fixture
def at_home(trained: Settings, monkeypatch) -> Settings:
    monkeypatch.setenv("RETRAINING_HOME", str(trained.home))
    return trained


def test_command_packs_and_tells_of_a_damaged_ledger(at_home: Settings, tmp_path, capsys):
    promote(at_home, 1, None)
    target = tmp_path / "pack.zip"
    command = ["ledger", "audit-pack", "flights", "--version", "1", "-o", str(target)]
    assert main(command) == 0
    assert f"{target}: " in capsys.readouterr().out
    key = "flights/ledger/000001.json"
    storage = Storage.of(at_home)
    storage.write_json(key, storage.read_json(key) | {"version": 3})
    assert main(command) == 1
    assert "ledger: entry 1 was changed" in capsys.readouterr().err
    assert main([*command[:-1], str(tmp_path / "no" / "folder.zip")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_command_rolls_back_and_asks_for_a_reason(at_home: Settings, capsys):
    promote(at_home, 1, None)
    assert main(["rollback", "flights", "--reason", " "]) == 2
    assert main(["rollback", "flights", "--reason", "it is worse"]) == 2
    assert "there is nothing to return to" in capsys.readouterr().err
    promote(at_home, 2, 1)
    promote(at_home, 3, 2)
    assert main(["rollback", "flights", "--reason", "it is worse"]) == 0
    assert "Rolled back: version 2 is in production, version 3 is not" in capsys.readouterr().out
    # whoever was killed half way calls it again, and cannot know how far it came
    assert main(["rollback", "flights", "--reason", "it is worse"]) == 0
    assert "already; to go further back, name --to-version" in capsys.readouterr().out
    assert server.aliases(SPEC, at_home)["champion"] == 2
    assert len(ledger.read(Storage.of(at_home), "flights")) == 4
    # a hand came after it: the same call claims nothing, and the one after that goes on from there
    server.client(at_home).set_registered_model_alias("flights", "champion", "1")
    again = ["rollback", "flights", "--reason", "it is worse"]
    assert main(again) == 2
    assert "made version 1 champion since; nothing was changed" in capsys.readouterr().err
    assert main(again) == 0
    assert server.aliases(SPEC, at_home)["champion"] == 2
    assert main(["rollback", "flights", "--reason", "worse", "--to-version", "3"]) == 0
    assert server.aliases(SPEC, at_home)["champion"] == 3
    newest = ledger.last(Storage.of(at_home), "flights")
    assert newest.actor.endswith(", by the command line")
