"""What batches and a retrain leave behind outside of the storage: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from include.retraining.settings import REPOSITORY, Settings
from include.retraining.temporary import PREFIX, temporary_folder
from tests.unit.pipeline import WEEKS

WALK = """
from benchmarks.walk import retrain, take
from include.demo import flights_feed
from include.retraining import shelf
from include.retraining.data.validation import SUITES
from include.retraining.records import GateDecision
from include.retraining.settings import Settings
from include.retraining.storage import Storage
from tests.unit.pipeline import WEEKS, small_spec
spec = small_spec(training={"min_rows": 12000})  # else the first retrain finds no rates to learn
settings = Settings.from_env()
decisions = []
for week in WEEKS:
    batch = spec.batch_ref(week)
    flights_feed.land(Storage.of(settings), batch)
    decisions.append(take(spec, settings, batch, SUITES).decision)
assert any(one is not None and one.passed for one in decisions), decisions
"""


def listing(folder: Path) -> dict[str, int]:
    """Give all files below a folder with their size, without what tools keep."""
    own = {".git", ".venv", "__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache", "var"}
    found = {}
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in own]
        for name in names:
            found[os.path.relpath(f"{path}/{name}", folder)] = Path(path, name).lstat().st_size
    return found


def test_batches_and_a_retrain_leave_nothing_outside_of_the_storage(empty: Settings, tmp_path):
    places = {name: tmp_path / name for name in ("temporary", "working", "user")}
    for place in places.values():
        place.mkdir()
    before = listing(REPOSITORY)
    environment = os.environ | {
        "TMPDIR": str(places["temporary"]),
        "HOME": str(places["user"]),
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
        "PYTHONPATH": str(REPOSITORY),
        "RETRAINING_HOME": str(empty.home),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WALK],
        env=environment,
        cwd=places["working"],
        capture_output=True,
        text=True,
        check=False,
        timeout=560,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert {name: listing(place) for name, place in places.items()} == {
        name: {} for name in places
    }, f"after {len(WEEKS)} weeks"
    assert listing(REPOSITORY) == before
    kept = {name.split("/")[0] for name in listing(empty.home)}
    assert kept <= {
        "storage",
        "mlflow.db",
        "mlflow-artifacts",
        "feast-registry.db",
        "feast-online.db",
    }


# --- a folder of a task's own ---------------------------------------------------------------------

STAYS = """
import sys, tempfile, time
from include.retraining.temporary import temporary_folder
with temporary_folder():
    tempfile.mkdtemp()
    print("there", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_a_task_has_a_temporary_folder_of_its_own_that_goes_with_it(temporary: Path):
    with temporary_folder() as folder:
        assert folder.parent == temporary
        assert Path(tempfile.mkdtemp()).parent == folder
        assert os.environ["TMPDIR"] == str(folder)
    assert list(temporary.iterdir()) == []
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(temporary)

    with pytest.raises(KeyboardInterrupt), temporary_folder():
        raise KeyboardInterrupt
    assert list(temporary.iterdir()) == []


def test_what_a_killed_task_left_goes_with_the_next_and_what_is_in_use_stays(temporary: Path):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    tasks = [
        subprocess.Popen(
            [sys.executable, "-c", STAYS], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        assert [task.stdout and task.stdout.readline() for task in tasks] == ["there\n"] * 2
        there = set(temporary.glob(f"{PREFIX}*"))
        assert len(there) == 2
        with temporary_folder():
            assert there < set(temporary.iterdir())
        tasks[0].send_signal(signal.SIGKILL)
        tasks[0].wait()
        (temporary / "of-others").mkdir()
        with temporary_folder():
            pass
        left = set(temporary.iterdir()) - {temporary / "of-others"}
        assert len(left) == 1
        assert left < there
    finally:
        for task in tasks:
            task.kill()
            task.communicate()
