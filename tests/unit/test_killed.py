"""A retrain whose process is killed, really, at one stage after the other, then left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from include.retraining.names import INCIDENT_TAG
from include.retraining.registry import ledger, server, versions
from include.retraining.settings import REPOSITORY, Settings
from include.retraining.storage import Storage
from tests.unit import pipeline
from tests.unit.killed import STAGES, spec
from tests.unit.retrain.test_gate import crown

pytestmark = pytest.mark.slow


def retrain(settings: Settings, stage: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.unit.killed", str(settings.home), stage],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


class Client(threading.Thread):
    """Polls which version it should serve, and whether that version is whole."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(daemon=True)
        self.settings = settings
        self.models = settings.home / "mlflow-artifacts" / "flights" / "models"
        self.seen: list[int | None] = []
        self.troubles: list[str] = []
        self.ended = threading.Event()

    def run(self) -> None:
        api = server.client(self.settings)
        while not self.ended.wait(0.05):
            number = server.aliases(spec(), self.settings).get("champion")
            self.seen.append(number)
            if number is None:
                self.troubles.append("no champion")
                continue
            source = api.get_model_version("flights", str(number)).source.removeprefix("models:/")
            if not (self.models / source / "artifacts" / "MLmodel").exists():
                self.troubles.append(f"version {number} has no model")


@pytest.fixture
def champion(trained: Settings) -> Settings:
    """Version 1 of three is champion."""
    crown(trained, 1, None)
    return trained


def test_retrain_killed_at_every_stage_is_one_retrain(champion: Settings, tmp_path):
    undisturbed = pipeline.copy_home(champion.home, tmp_path / "undisturbed")
    expected = retrain(undisturbed, "never")
    assert expected.returncode == 0, expected.stderr[-3000:]

    client = Client(champion)
    client.start()
    for stage in STAGES:
        killed = retrain(champion, stage)
        assert killed.returncode == -9, (stage, killed.returncode, killed.stderr[-2000:])
    finished = retrain(champion, "never")
    client.ended.set()
    client.join()
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout.splitlines()[-1] == expected.stdout.splitlines()[-1]

    assert client.troubles == []
    assert len(client.seen) > 20
    moves = [
        one for one, before in zip(client.seen, [0, *client.seen], strict=False) if one != before
    ]
    assert moves == [1, 4]

    api = server.client(champion)
    incident = versions.version(spec(), champion, 4).incident_id
    where = f"tags.`{INCIDENT_TAG}` = '{incident}'"
    assert len(api.search_runs([server.experiment_id(spec(), champion)], where)) == 1
    assert len(api.search_model_versions(f"name = 'flights' and {where}")) == 1
    entries = ledger.read(Storage.of(champion), "flights")
    assert [entry.version for entry in entries] == [1, 4]
    assert ledger.verify(Storage.of(champion), "flights") == []
    stages = {number: versions.version(spec(), champion, number).stage for number in (1, 4)}
    assert stages == {1: "Archived", 4: "Production"}
