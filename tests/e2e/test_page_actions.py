"""A person retrains, approves and rolls back from the page Models alone, on the whole stack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.retraining.registry import ledger
from include.retraining.storage import Storage
from tests.e2e.copied import CopiedStack
from tests.e2e.runs import dags, eventually, spec_of
from tests.e2e.seen import CHROMIUM, Seen, chromium
from tests.unit import pipeline

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium"),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory, ingested_home: Path) -> Iterator[CopiedStack]:
    """Four weeks in force, no model yet, and a person who has to approve."""
    base = tmp_path_factory.mktemp("actions")
    settings = pipeline.copy_home(ingested_home, base / "home")
    found = CopiedStack(settings, base / "bundle")
    spec_of(found.root)
    try:
        found.prepare()
        found.start()
        assert eventually(lambda: {"flights__retrain", "flights__rollback"} <= dags(found))
        for stage in ("retrain", "rollback"):
            found.patch(f"dags/flights__{stage}", {"is_paused": False})
        yield found
    finally:
        found.stop()


@pytest.fixture
def page(stack: CopiedStack) -> Iterator[Any]:
    with chromium() as browser:
        seen = Seen(browser, stack.url, user="admin", password=stack.password)
        yield seen.go("/plugin/models?model=flights")
        assert seen.complaints == []


def press(page: Any, button: str, reason: str, *, force: bool = False) -> None:
    page.get_by_role("button", name=f"{button} \N{HORIZONTAL ELLIPSIS}").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill(reason)
    if force:
        dialog.get_by_role("checkbox").check()
    dialog.get_by_role("button", name=button, exact=True).click()
    dialog.get_by_role("status").wait_for()
    dialog.get_by_role("button", name="Close").click()


def approve(page: Any, version: int) -> None:
    """Wait for the question on the page, and answer it there."""
    question = page.locator(".rt-question").filter(has_text=f"version {version}")
    question.wait_for()
    page.page.wait_for_timeout(3000)  # an answer that is sent at once can be lost
    question.get_by_role("button", name="Approve").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Approve").click()
    dialog.get_by_text("Airflow has taken the answer.").wait_for()
    dialog.get_by_role("button", name="Close").click()


def in_production(page: Any, version: int) -> None:
    card = page.get_by_role("region", name="What is in production?")
    card.get_by_text(f"version {version}", exact=True).wait_for()


def test_retrain_approval_and_rollback_are_done_on_the_page(stack: CopiedStack, page: Any):
    for version in (1, 2):
        press(page, "Retrain", f"the page asks for version {version}", force=True)
        approve(page, version)
        in_production(page, version)
    press(page, "Roll back to version 1", "a drill on the page")
    in_production(page, 1)
    page.get_by_text("a drill on the page").first.wait_for()
    moves = ledger.read(Storage.of(stack.settings), "flights")
    assert [(one.action, one.version, one.actor) for one in moves] == [
        ("promotion", 1, "admin, who approved"),
        ("promotion", 2, "admin, who approved"),
        ("rollback", 1, "admin"),
    ]
