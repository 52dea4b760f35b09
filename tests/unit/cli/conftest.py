"""A home to ask about, and how to ask."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from include.retraining import shelf
from include.retraining.__main__ import main
from include.retraining.records import Harm, Verdict
from include.retraining.settings import Settings
from include.retraining.storage import Storage
from tests.unit.pipeline import WEEKS
from tests.unit.registry.test_succession import SPEC, promote


class Said(NamedTuple):
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def found(self) -> Any:
        """The JSON, which must be all there is on stdout."""
        return json.loads(self.out)


Ask = Callable[..., Said]


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine's says what colours and widths are to be."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """Give a function that runs a command."""

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return Said(status, *capsys.readouterr())

    return run


WITHIN = Harm(
    state="within", metric="roc_auc", windows=3, times=0.7, needed=20, before=0.7, after=0.7
)
BELOW = WITHIN.model_copy(
    update={"state": "below", "since": WEEKS[-1], "times": 45.0, "after": 0.6}
)


def judge(
    settings: Settings,
    outcome: str,
    *,
    model: str = "flights",
    version: int | None = 2,
    harm: Harm | None = WITHIN,
) -> None:
    """Keep a verdict on the newest batch."""
    batch = SPEC.batch_ref(WEEKS[-1]).model_copy(update={"model": model})
    verdict = Verdict(
        batch=batch, outcome=outcome, reasons=("a test says so",), content_sha256="c",
        champion_version=version, incident_id="incident-9", harm=harm,
    )  # fmt: skip
    shelf.keep(Storage.of(settings), verdict)


@pytest.fixture
def reigning(trained: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Version 2 is champion after version 1, and the newest verdict says that it is well."""
    monkeypatch.setenv("RETRAINING_HOME", str(trained.home))
    promote(trained, 1, None)
    promote(trained, 2, 1)
    judge(trained, "ignore")
    return trained


@pytest.fixture
def looking(shared: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Four real weeks in force, for commands that change nothing."""
    monkeypatch.setenv("RETRAINING_HOME", str(shared.home))
    return shared
