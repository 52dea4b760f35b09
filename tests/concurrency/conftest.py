from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.concurrency import world
from tests.concurrency.schedule import scheduled
from tests.unit.conftest import (  # noqa: F401 - fixtures
    _clean_environment,
    _empty_home,
    _make_once,
    _s3_server,
    s3_environment,
)


@pytest.fixture(scope="session")
def _home_of_all(_empty_home: Path, _make_once: Callable[..., Path]) -> Path:  # noqa: F811
    """A home with champion 2, candidates 3 and 4, and two deliveries of one batch."""
    return _make_once("at-once", lambda home: world.fill(_empty_home, home))


@pytest.fixture(scope="module")
def at_once(_home_of_all: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[world.World]:
    """What everything at once is tried on; calls of actors are scheduled."""
    with scheduled():
        yield world.World(_home_of_all, tmp_path_factory.mktemp("home"))


@pytest.fixture
def at_once_on_s3(
    _home_of_all: Path,
    tmp_path: Path,
    s3_environment: dict[str, str],  # noqa: F811
) -> Iterator[world.World]:
    """The same with its storage on S3."""
    del s3_environment
    with scheduled():
        yield world.World(_home_of_all, tmp_path / "home", f"s3://retraining/{tmp_path.name}")
