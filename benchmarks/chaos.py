"""What is decided about flights while everything is killed: `python -m benchmarks.chaos`.

Weeks land one by one on the embedded stack, with a small model. Each task is killed once (SIGKILL)
in the middle of it, and so is each part of Airflow, which is then started again as a supervisor
would. In the end every verdict, retrain and ledger entry has to be that of the same weeks taken in
one process that nobody disturbs (`benchmarks.walk`), every row is accounted for, each incident has
one version, the champion can be loaded, and nothing is left half-written. Writes
var/bench/chaos.json; gives 1 and says what is wrong if anything is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.order import DONE, decided, differences, in_order
from include.demo import flights_feed
from include.demo.stack import StackError
from include.retraining import shelf
from include.retraining.data import publication
from include.retraining.names import Stage, dag_id
from include.retraining.records import BatchRef, ValidationReport, Verdict
from include.retraining.registry import anchor, ledger, versions
from include.retraining.retrain import claims
from include.retraining.settings import REPOSITORY, Settings
from include.retraining.storage import Storage
from include.retraining.temporary import PREFIX
from tests.e2e.copied import CopiedStack
from tests.e2e.runs import dags, spec_of

STAGES: tuple[Stage, ...] = ("ingest", "monitor", "retrain")
FIRST = 16  # as the demo
BAD_WEEK = 1  # counted from 0: comes with bad rows
# the part of Airflow that is killed in a week, and how many seconds after the file has landed;
# the triggerer before, while it waits for the file
PARTS = {
    2: ("triggerer", None),
    3: ("dag-processor", 1.0),
    4: ("api-server", 4.0),
    5: ("scheduler", 6.0),
}
SECONDS = 600.0
# a killed task is tried again at once, and one whose executor died is noticed before five minutes
POLICY = """

def task_policy(task):
    import datetime as dt

    task.retry_delay = dt.timedelta(seconds=1)
    task.retry_exponential_backoff = 0
"""
NOTICED_SOON = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
}


class Killed(CopiedStack):
    """The embedded stack, whose tasks are killed by a listener and whose parts are killed here."""

    def __init__(self, settings: Settings, root: Path, seed: int) -> None:
        super().__init__(settings, root)
        self.seed = seed
        self.kills, self.temporary = root.parent / "kills", root.parent / "tmp"
        for folder in (self.kills / "seconds", self.kills / "killed", self.temporary):
            folder.mkdir(parents=True)
        shutil.copy(REPOSITORY / "benchmarks" / "kill_listener.py", self.settings.plugins)

    @property
    def environment(self) -> dict[str, str]:
        return (
            super().environment
            | NOTICED_SOON
            | {
                "BENCHMARK_KILLS": str(self.kills),
                "BENCHMARK_SEED": str(self.seed),
                "TMPDIR": str(self.temporary),
            }
        )

    def prepare(self) -> None:
        super().prepare()
        with (self.home / "airflow" / "config" / "airflow_local_settings.py").open("a") as file:
            file.write(POLICY)

    def kill(self, part: str) -> None:
        """Kill a part of Airflow, with all that it forked."""
        pid = json.loads(self._note.read_text())["pids"][part]
        os.killpg(pid, signal.SIGKILL)

    def revive(self, part: str) -> None:
        """Start a part again that was killed, and wait until all are healthy."""
        process = self._spawn(part, self._commands()[part])
        note = json.loads(self._note.read_text())
        note["pids"][part] = process.pid
        note["started"].pop(part)
        self._note.write_text(json.dumps(note))
        self._wait_until_healthy({part: process})

    def killed(self) -> dict[str, dict[str, Any]]:
        """Give the tasks that were killed, and when."""
        return {
            note.name: json.loads(note.read_text())
            for note in sorted((self.kills / "killed").iterdir())
        }

    def spared(self) -> list[str]:
        """Give the tasks that have run to their end and never were killed."""
        ran = {note.name for note in (self.kills / "seconds").iterdir()}
        return sorted(ran - set(self.killed()))


class Chaos:
    """One run: weeks, what is killed, and what came of it."""

    def __init__(self, folder: Path, weeks: int, seed: int) -> None:
        self.started = time.monotonic()
        self.stack = Killed(Settings(home=folder / "home"), folder / "bundle", seed)
        self.spec = spec_of(self.stack.root, min_rows=10000, autonomy=3)
        first, length = self.spec.partitions.first, self.spec.partitions.length
        self.batches = [
            self.spec.batch_ref(self.spec.partition_key(first + week * length))
            for week in range(FIRST, FIRST + weeks)
        ]
        bad = flights_feed.flights_of(self.batches[BAD_WEEK])
        bad.loc[10:49, "distance"] = -1
        self.deliveries: dict[str, pd.DataFrame] = {self.batches[BAD_WEEK].partition: bad}
        self.storage = Storage.of(self.stack.settings)
        self.runs: list[dict[str, Any]] = []  # of Airflow, as they ended

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:4.0f} s] {text}", flush=True)

    def live(self) -> None:
        """Let all weeks land, and kill."""
        model = self.spec.model
        self.stack.prepare()
        self.stack.start()
        self.say("Airflow is healthy")
        names = {dag_id(model, stage) for stage in STAGES}
        self.wait("the DAGs", lambda: names <= dags(self.stack))
        self.stack.backfill(model, STAGES, self.batches)
        for number, batch in enumerate(self.batches):
            self.one_week(batch, *PARTS.get(number, ("", None)))

    def one_week(self, batch: BatchRef, part: str, after: float | None) -> None:
        before = set(self.stack.killed())
        if part and after is None:
            self.wait("a deferred task", self.waits)
            self.stack.kill(part)
        flights_feed.land(self.storage, batch, self.deliveries.get(batch.partition))
        if part:
            if after is not None:
                time.sleep(after)
                self.stack.kill(part)
            self.say(f"{batch.partition}: {part} is killed")
            self.stack.revive(part)
            self.say(f"{batch.partition}: {part} is back")
        self.wait(f"the end of {batch.partition}", lambda: self.over(batch))
        verdict = shelf.find(self.storage, Verdict, self.spec.model, batch.partition)
        died = sorted(name.partition("__")[2] for name in set(self.stack.killed()) - before)
        self.say(
            f"{batch.partition}: {verdict and verdict.outcome}; killed: {', '.join(died) or '-'}"
        )

    def wait(self, what: str, question: Any) -> None:
        while not question():
            if time.monotonic() - self.started > SECONDS:
                raise StackError(
                    f"no {what} after {SECONDS:.0f} s; open: {self.open_runs()}; "
                    f"logs were in {self.stack.home}/logs"
                )
            time.sleep(0.5)

    def waits(self) -> bool:
        path = f"dags/{dag_id(self.spec.model, 'ingest')}/dagRuns/~/taskInstances"
        return bool(self.stack.get(path, state="deferred")["task_instances"])

    def open_runs(self) -> list[tuple[str, str, str]]:
        runs = self.stack.get("dags/~/dagRuns", limit=100)["dag_runs"]
        return [
            (run["dag_id"], run["partition_key"] or run["dag_run_id"], run["state"])
            for run in runs
            if run["state"] not in DONE
        ]

    def over(self, batch: BatchRef) -> bool:
        """Is all done that follows from a batch?"""
        verdict = shelf.find(self.storage, Verdict, self.spec.model, batch.partition)
        if verdict is None:
            return False
        later = {one.partition for one in self.batches if one.start > batch.start}
        ingest = dag_id(self.spec.model, "ingest")
        if any(run[:1] != (ingest,) or run[1] not in later for run in self.open_runs()):
            return False
        if verdict.outcome != "retrain":
            return True
        runs = self.stack.get(f"dags/{dag_id(self.spec.model, 'retrain')}/dagRuns", limit=100)
        return verdict.incident_id in {run["dag_run_id"] for run in runs["dag_runs"]}

    def problems(self, right: dict[str, list[Any]]) -> Iterator[str]:
        """Name all that is not as it should be."""
        spec, settings = self.spec, self.stack.settings
        yield from differences(right, decided(spec, settings, self.batches))
        yield from self.lost_rows()
        made = Counter(one.incident_id for one in versions.all_versions(spec, settings))
        yield from (
            f"incident {one} has {count} versions" for one, count in made.items() if count > 1
        )
        claimed = {one.incident_id for one in claims.claimed(self.storage, spec.model)}
        yield from (f"version of nobody's incident: {one}" for one in set(made) - claimed)
        yield from anchor.verify(spec, settings).problems
        yield from self.bad_champion()
        yield from self.half_written()
        runs = self.runs
        yield from (
            f"{run['dag_id']} {run['dag_run_id']} failed"
            for run in runs
            if run["state"] == "failed"
        )
        yield from (f"{name} was never killed" for name in self.stack.spared())

    def lost_rows(self) -> Iterator[str]:
        good = publication.rows_in_force(self.spec, self.storage)
        bad = publication.quarantined_rows(self.spec, self.storage)
        for batch in self.batches:
            frame = self.deliveries.get(batch.partition)
            landed = len(flights_feed.flights_of(batch) if frame is None else frame)
            report = shelf.find(self.storage, ValidationReport, self.spec.model, batch.partition)
            told = report and (report.rows_in, report.rows_good + report.rows_quarantined)
            kept = sum(
                table.read([batch.partition]).num_rows
                for table in (good, bad)
                if batch.partition in table.parts
            )
            if (told, kept) != ((landed, landed), landed):
                yield f"{batch.partition}: {landed} rows landed, {kept} are kept, {told} told of"

    def bad_champion(self) -> Iterator[str]:
        champion = versions.champion(self.spec, self.stack.settings)
        last = ledger.last(self.storage, self.spec.model)
        if champion is None or last is None:
            yield "no champion, or nothing in the ledger"
            return
        versions.load_model(self.spec, self.stack.settings, champion)
        if (champion.number, champion.model_sha256) != (last.version, last.version_sha256):
            yield f"the champion is version {champion.number}, the ledger's is {last.version}"

    def half_written(self) -> Iterator[str]:
        """Look for temporary files, for JSON that is none, and for folders of killed tasks."""
        self.storage.remove_leftovers("", older_than=pd.Timedelta(0).to_pytimedelta())
        for path in (self.stack.home / "storage").rglob("*"):
            if path.name.endswith(".tmp"):
                yield f"{path} is left"
            if path.suffix == ".json" and "_delta_log" not in path.parts:
                try:
                    json.loads(path.read_bytes())
                except ValueError:
                    yield f"{path} is no JSON"
        yield from (f"{path} is left" for path in self.stack.temporary.glob(f"*{PREFIX}*"))

    def run(self) -> dict[str, Any]:
        """Do all of it; give what came of it."""
        right = in_order(
            self.spec, self.stack.root.parent / "undisturbed", self.batches, self.deliveries
        )
        self.say(f"undisturbed: { ({kind: len(lines) for kind, lines in right.items()}) }")
        try:
            self.live()
            self.runs = self.stack.get("dags/~/dagRuns", limit=100)["dag_runs"]
        finally:
            self.stack.stop()
        return {
            "seconds": round(time.monotonic() - self.started),
            "weeks": len(self.batches),
            "decided": right,
            "parts_killed": [part for part, _ in PARTS.values()],
            "tasks_killed": self.stack.killed(),
            "problems": list(self.problems(right)),
        }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--weeks", type=int, default=7)
    parser.add_argument("--seed", type=int, default=1, help="of the moments when tasks are killed")
    parser.add_argument("--keep", type=Path, help="an empty folder that is kept, with all logs")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        result = Chaos(folder.absolute(), options.weeks, options.seed).run()
    target = REPOSITORY / "var" / "bench" / "chaos.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"seed": options.seed} | result, indent=2))
    print(
        f"{len(result['tasks_killed'])} tasks and {len(PARTS)} parts were killed, "
        f"{result['seconds']} s"
    )
    print(*result["problems"] or ["all is as if nothing had happened"], sep="\n")
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
