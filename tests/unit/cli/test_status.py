from __future__ import annotations

import shutil

import pytest

from include.retraining import shelf
from include.retraining.cli import status as status_command
from include.retraining.errors import SpecError
from include.retraining.records import (
    DriftReport,
    FeatureDrift,
    GateDecision,
    RetrainClaim,
    RetrainRequest,
    ValidationReport,
    Verdict,
)
from include.retraining.registry import ledger, server
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec, SpecFiles
from include.retraining.storage import Storage
from tests.unit.cli.conftest import BELOW, WITHIN, Ask, judge
from tests.unit.pipeline import WEEKS
from tests.unit.registry.test_succession import SPEC
from tests.unit.writers import draft


def named(name: str) -> ModelSpec:
    return SPEC.model_copy(update={"model": name})


@pytest.fixture
def several(reigning: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """One model of each kind: well, not well, new, and one whose ledger is no JSON."""
    folder = reigning.home / "storage"
    shutil.copytree(folder / "flights", folder / "sick")
    judge(reigning, "retrain", model="sick", harm=BELOW)
    Storage.of(reigning).write("broken/ledger/000001.json", b"[red]{[/red]")
    specs = tuple(named(name) for name in ("flights", "new", "broken", "sick"))
    wrong = SpecError("lable is no setting", path="include/models/wrong.yaml", line=3)
    monkeypatch.setattr(status_command, "load_specs", lambda: SpecFiles(specs, (wrong,)))
    return reigning


def test_one_model_answers_three_questions(ask, reigning):
    said = ask("status", "flights")
    assert said.status == 0
    assert "What is in production?\n  version 2, since 2013-02-04 00:00:00 UTC" in said.out
    assert "Is it well?\n  yes" in said.out
    assert "What do I do?\n  Nothing to do" in said.out
    found = ask("status", "flights", "--json").found
    assert (found["version"], found["well"], found["verdict"]["outcome"]) == (2, True, "ignore")


def test_model_that_is_not_well_gives_status_1(ask, reigning):
    judge(reigning, "retrain", harm=BELOW)
    assert ask("status", "flights").status == 1
    assert ask("status", "flights", "--json").found["well"] is False


def shown(ask: Ask) -> str:
    return str(ask("status", "flights").out)


def test_after_a_promotion_the_new_champion_is_not_judged_yet(ask, reigning):
    judge(reigning, "ignore", version=1)
    said = shown(ask)
    assert "Is it well?\n  not judged yet\n" in said
    assert "is about version 1, before version 2 took over; wait for the next batch" in said


def test_first_champion_is_not_judged_by_what_was_said_before_it(ask, reigning):
    judge(reigning, "retrain", version=None)
    said = shown(ask)
    assert "Is it well?\n  not judged yet\n" in said
    assert "made before any version was in production; wait" in said
    assert "version None" not in said


def test_newest_batch_without_a_verdict_is_not_judged_yet(ask, reigning):
    Storage.of(reigning).delete(shelf.key_of(Verdict, "flights", WEEKS[-1]))
    said = shown(ask)
    assert f"{WEEKS[-1]} is not judged yet: look at its run of flights__monitor" in said
    assert "Nothing to do" not in said


def test_watched_drift_is_not_nothing_to_do(ask, reigning, drifted):
    judge(reigning, "watch")
    said = shown(ask)
    assert "Is it well?\n  drift is watched: distance at 5.0x its threshold\n" in said
    assert "Nothing to do" not in said
    assert ask("status", "flights", "--json").found["well"] is None


def test_what_all_windows_say_is_told_once(ask, reigning):
    assert f"  has it fallen? {WITHIN.in_words}\n" in shown(ask)
    unsure = WITHIN.model_copy(update={"state": "not known", "times": 3.0})
    judge(reigning, "ignore", harm=unsure)
    assert shown(ask).count(unsure.in_words) == 1
    judge(reigning, "ignore", harm=unsure, version=1)  # about another version
    assert unsure.in_words not in shown(ask)


def test_without_outcomes_nobody_says_yes(ask, reigning):
    judge(reigning, "ignore", harm=None)
    assert "as it was; no outcome says yet how well it does\n" in shown(ask)
    assert ask("status", "flights", "--json").found["well"] is None
    unsure = WITHIN.model_copy(update={"state": "not known", "times": 3.0})
    judge(reigning, "ignore", harm=unsure)
    assert f"as it was; {unsure.in_words}\n" in shown(ask)
    assert ask("status", "flights", "--json").found["well"] is None


@pytest.mark.parametrize(
    ("state", "well"), [("below", False), ("within", True), ("not known", None)]
)
def test_a_retrain_that_was_asked_for_says_how_well_it_does(ask, reigning, state, well):
    harm = WITHIN.model_copy(update={"state": state})
    judge(reigning, "blocked", harm=harm)
    shelf.keep(
        Storage.of(reigning),
        DriftReport(
            batch=SPEC.batch_ref(WEEKS[-1]), content_sha256="c", champion_version=2,
            state="calibrated", rows=9, labelled_rows=9,
        ),
    )  # fmt: skip
    assert harm.in_words in shown(ask)
    assert ask("status", "flights", "--json").found["well"] is well


def test_a_batch_the_champion_learned_from_says_nothing(ask, reigning):
    """Whatever it is like: "what comes in is as it was" would be wrong of one that drifted."""
    judge(reigning, "ignore", harm=None)
    report = DriftReport(
        batch=SPEC.batch_ref(WEEKS[-1]), content_sha256="c", champion_version=2,
        state="calibrated", rows=9, labelled_rows=9, in_sample=True,
    )  # fmt: skip
    shelf.keep(Storage.of(reigning), report)
    assert "not judged: the newest batch is as old as what the champion" in shown(ask)
    assert ask("status", "flights", "--json").found["well"] is None


def test_what_could_not_be_judged_takes_its_part_of_the_yes(ask, reigning, drifted):
    said = shown(ask)
    assert "Is it well?\n  yes, as far as 1 of 2 columns say\n" in said
    assert "not judged: blind[red]\n" in said


@pytest.fixture
def drifted(reigning: Settings) -> None:
    """The newest batch has a column that drifted, and one that nobody can judge."""
    column = FeatureDrift(
        name="distance", kind="numeric", distance=0.5, threshold=0.1, p_value=0.0,
        state="calibrated", drifted=True, reason="a test says so",
    )  # fmt: skip
    blind = {"name": "blind[red]", "threshold": None, "state": "insufficient", "drifted": False}
    report = DriftReport(
        batch=SPEC.batch_ref(WEEKS[-1]), content_sha256="c", champion_version=2,
        state="calibrated", rows=9, labelled_rows=0,
        features=(column, column.model_copy(update=blind)),
    )  # fmt: skip
    shelf.keep(Storage.of(reigning), report)


def landed(settings: Settings, partition: str, status: str) -> None:
    rows = {"rows_in": 9, "rows_good": 9, "rows_quarantined": 0}
    report = ValidationReport(
        batch=SPEC.batch_ref(partition), status=status, content_sha256="c", suite_sha256="s", **rows
    )
    shelf.keep(Storage.of(settings), report)


def test_newest_batch_that_was_refused_is_not_well(ask, reigning):
    landed(reigning, "2013-02-04", "refused")
    said = ask("status", "flights")
    assert said.status == 1
    assert "no: the newest batch, 2013-02-04, was refused" in said.out
    assert "2013-02-04 was refused: deliver a corrected file" in said.out


def test_older_batch_that_was_refused_is_something_to_do(ask, reigning):
    landed(reigning, WEEKS[1], "refused")
    said = shown(ask)
    assert "Is it well?\n  yes\n" in said
    assert f"{WEEKS[1]} was refused" in said
    assert "Nothing to do" not in said


def test_batch_that_was_accepted_and_never_came_into_force_is_told(ask, reigning):
    landed(reigning, "2013-02-11", "accepted")
    assert "2013-02-11 was validated and is not in force: look at its run" in shown(ask)


def test_retrain_is_named_however_far_it_has_come(ask, reigning):
    storage = Storage.of(reigning)
    judge(reigning, "retrain")
    assert "last retrain: incident-9 has not begun" in shown(ask)
    request = RetrainRequest(
        incident_id="incident-9", batch=SPEC.batch_ref(WEEKS[-1]), trigger="monitor",
        reason="x", champion_version=2,
    )  # fmt: skip
    shelf.keep(storage, RetrainClaim(run_id="run-9", request=request))
    assert (
        "incident-9 has begun and not ended, nothing is trained: run run-9 of flights__retrain"
        in shown(ask)
    )
    decision = GateDecision(
        incident_id="incident-9", model="flights", partition=WEEKS[-1], candidate_version=3,
        champion_version=2, passed=False, reasons=("it is [bold]no[/bold] better\x1b[2J",),
        candidate=None,
    )  # fmt: skip
    shelf.keep(storage, decision)
    assert r"version 3 was rejected: it is [bold]no[/bold] better\x1b[2J" in shown(ask)
    passed = decision.model_copy(update={"passed": True})
    shelf.keep(storage, passed)
    assert "version 3 passed the gate and is not promoted: run run-9" in shown(ask)
    entries = ledger.append(
        storage, draft("incident-9", 3, partition=WEEKS[-1], previous_version=2)
    )
    assert entries.sequence == 3
    assert "incident-9 has ended, version 3 is in production" in shown(ask)
    back = draft("r", 2, action="rollback", previous_version=3, reason="late\nIs it well?")
    ledger.append(storage, back)
    said = shown(ask)
    assert "version 3 was promoted and rolled back: late Is it well?" in said
    assert said.count("\nIs it well?") == 1


def test_the_ledger_is_read_once(ask, reigning, monkeypatch):
    read, calls = ledger.read, []
    monkeypatch.setattr(ledger, "read", lambda *args: calls.append(args) or read(*args))
    assert "version 2" in shown(ask)
    assert len(calls) == 1


def test_registry_is_asked_on_demand(ask, reigning):
    assert ask("status", "flights", "--registry", "--json").found["registry_asked"] is True


def test_champion_that_a_hand_made_is_told_no_story_of_another_version(ask, reigning):
    server.client(reigning).set_registered_model_alias("flights", "champion", "3")
    said = ask("status", "flights", "--registry")
    assert said.status == 1
    assert "version 3, which the ledger does not know as champion" in said.out
    assert "trained on" not in said.out
    assert "promised" not in said.out
    assert "no: version 3 was made champion by hand, and nothing was judged since" in said.out


def test_without_a_name_all_models_are_shown(ask, reigning):
    said = ask("status")
    assert said.status == 0
    head, *rows = said.out.splitlines()
    assert head.split("  ")[0] == "model"
    assert [row.split()[0] for row in rows] == ["churn", "flights"]
    assert "Nothing is in production yet" in rows[0]
    assert "2013-02-04  yes" in rows[1]
    assert "ignore   Nothing to do" in rows[1]


def test_what_is_due_comes_first_and_one_that_fails_hides_no_other(ask, several):
    said = ask("status")
    assert said.status == 1
    rows = said.out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["broken", "sick", "new", "flights"]
    assert "error" in rows[0]
    assert "ledger entry 1 is damaged" in rows[0]
    assert "asked for: incident-9 has not begun: look at sick__retrain" in rows[1]
    assert "include/models/wrong.yaml:3: lable is no setting" in said.err
    assert "…" not in said.out
    assert "\x1b" not in said.out


def test_programs_get_the_same_as_a_list(ask, several):
    said = ask("status", "--json")
    assert said.status == 1
    assert [one["model"] for one in said.found] == ["broken", "sick", "new", "flights"]
    assert set(said.found[0]) == {"model", "error"}
    assert [one.get("well") for one in said.found[1:]] == [False, None, True]
    assert "wrong.yaml" in said.err


def test_wrong_model_file_is_told_and_not_fatal(ask, reigning, monkeypatch):
    wrong = SpecError("lable is no setting", path="wrong.yaml", line=3)
    monkeypatch.setattr(status_command, "load_specs", lambda: SpecFiles((SPEC,), (wrong,)))
    said = ask("status", "--json")
    assert (said.status, said.err) == (0, "wrong.yaml:3: lable is no setting\n")


def test_folder_without_model_files_is_wrong_use(ask, reigning, monkeypatch):
    monkeypatch.setattr(status_command, "load_specs", lambda: SpecFiles((), ()))
    said = ask("status")
    assert said.status == 2
    assert "error: no model files in" in said.err
