"""A browser that is logged in to Airflow, and everything it complains of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.e2e.test_form import CHROMIUM, FLAGS

SECONDS = 180.0


@contextmanager
def chromium() -> Iterator[Any]:
    """Run Debian's Chromium for as long as it is needed."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


class Seen:
    """A browser's page that is logged in, and everything it complained of."""

    def __init__(self, browser: Any, url: str, *, user: str, password: str, **options: Any) -> None:
        self.url = url
        self.context = browser.new_context(
            **{"viewport": {"width": 1440, "height": 900}, **options}
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(SECONDS * 1000)
        self.complaints: list[str] = []
        self.page.goto(f"{url}/")
        self.page.get_by_label("Username").fill(user)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_text("Dags").first.wait_for()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def go(self, path: str) -> Any:
        self.page.goto(f"{self.url}{path}")
        self.page.locator(".rt-foot").wait_for()
        return self.page.locator(".rt-page")
