from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from include.demo import flights_feed
from include.retraining import shelf
from include.retraining.__main__ import main
from include.retraining.data import publication, quarantine, validation
from include.retraining.errors import BatchRefused, DataError, NotPublished, Superseded
from include.retraining.features import feature_sets
from include.retraining.records import DeliveryMapping, Finding, ValidationReport
from include.retraining.settings import Settings
from include.retraining.storage import Storage
from tests.unit.pipeline import WEEKS, ingest, small_spec, validate
from tests.unit.writers import replay_quarantine

SPEC = small_spec()
WEEK = WEEKS[1]
BATCH = SPEC.batch_ref(WEEK)
RENAME = DeliveryMapping(renames={"dist": "distance"}, reason="a new exporter", actor="ann")
NEWARK = DeliveryMapping(
    replacements={"origin": {"Newark": "EWR"}}, reason="spelt out", actor="ann"
)


def week() -> pd.DataFrame:
    return flights_feed.flights_of(BATCH).copy()


def refused_week() -> pd.DataFrame:
    return week().rename(columns={"distance": "dist"})


def misspelt_week() -> pd.DataFrame:
    frame = week()
    frame.loc[[3, 5, 8], "origin"] = "Newark"
    frame.loc[[10, 11], "distance"] = -1.0
    return frame


@pytest.fixture
def storage(empty: Settings) -> Storage:
    return Storage.of(empty)


def replay(storage: Storage, mapping: DeliveryMapping | None = None) -> ValidationReport:
    return quarantine.revalidate_batch(SPEC, storage, BATCH, mapping=mapping)


def folder_of(report: ValidationReport) -> str:
    return shelf.delivery_folder("flights", WEEK, report.content_sha256)


def good(storage: Storage, report: ValidationReport) -> pd.DataFrame:
    return storage.read_table(report.files["batch"]).to_pandas()


def test_refused_batch_comes_back_whole_with_the_columns_renamed(empty, storage):
    report = validate(SPEC, empty, WEEK, refused_week())
    assert report.status == "refused"
    report = replay(storage, RENAME)
    assert (report.status, report.rows_good, report.rows_quarantined) == ("accepted", 6053, 0)
    assert report.mapping == RENAME
    pd.testing.assert_frame_equal(
        good(storage, report), week()[list(SPEC.source.columns)], check_dtype=False
    )
    assert publication.publish_batch(SPEC, storage, report)
    assert quarantine.newest_report(SPEC, storage, BATCH) == report


def test_rows_come_back_with_their_values_replaced_and_the_others_stay(empty, storage):
    report = validate(SPEC, empty, WEEK, misspelt_week())
    assert (report.rows_good, report.rows_quarantined) == (6048, 5)
    after = replay(storage, NEWARK)
    assert after.rows_in == report.rows_in == after.rows_good + after.rows_quarantined
    assert after.rows_quarantined == 2
    bad = storage.read_table(validation.quarantined_key(after))
    assert bad.column(validation.ROW).to_pylist() == [10, 11]
    assert (good(storage, after)["origin"].iloc[[3, 5, 8]] == "EWR").all()
    # what the first report says is still where it says
    assert storage.read_table(validation.quarantined_key(report)).num_rows == 5


def test_value_may_be_replaced_by_a_missing_one_and_numbers_too(empty, storage):
    validate(SPEC, empty, WEEK, misspelt_week().assign(dep_delay=99999.0))
    mapping = DeliveryMapping(
        replacements={"distance": {"-1": "200"}, "dep_delay": {"99999": None}, "origin": {"?": "x"}}
    )
    report = replay(storage, mapping)
    assert report.rows_quarantined == 3  # Newark
    frame = good(storage, report)
    assert frame["dep_delay"].isna().all()
    assert (frame["distance"] > 0).all()


def test_mended_suite_lets_rows_back_in(empty, storage, tmp_path: Path):
    validate(SPEC, empty, WEEK, misspelt_week())
    suites = tmp_path / "suites"
    suites.mkdir()
    for path in validation.SUITES.glob("flights*.json"):
        text = path.read_text().replace('["EWR", "JFK", "LGA"]', '["EWR", "JFK", "LGA", "Newark"]')
        (suites / path.name).write_text(text)
    report = quarantine.revalidate_batch(SPEC, storage, BATCH, suites=suites)
    assert (report.rows_good, report.rows_quarantined, report.mapping) == (6051, 2, None)


def test_replay_looks_at_all_rows_together(empty, storage):
    frame = week()
    frame.loc[3, ["sched_dep", "carrier"]] = frame.loc[4, ["sched_dep", "carrier"]]
    frame.loc[3, "flight"] = frame.loc[4, "flight"]
    frame.loc[3, "origin"] = "Newark"
    validate(SPEC, empty, WEEK, frame)
    report = replay(storage, NEWARK)  # its origin is right now, its key is still taken
    assert report.rows_quarantined == 2


def test_weather_may_be_mapped_too(empty, storage):
    flights_feed.land(storage, BATCH)
    weather = flights_feed.weather_of(BATCH).rename(columns={"temp": "temperature"})
    weather.to_parquet(
        storage.filesystem._strip_protocol(storage.url) + f"/landing/weather/{WEEK}.parquet"
    )
    assert validation.validate_batch(SPEC, storage, BATCH).status == "refused"
    report = replay(storage, DeliveryMapping(input="weather", renames={"temperature": "temp"}))
    assert report.status == "accepted"
    assert {f.severity for f in report.findings} == {"info"}


def everything(storage: Storage) -> dict[str, bytes]:
    """Give all objects but the pages: Great Expectations writes the time into them."""
    keys = [key for key in storage.list("flights") if not key.endswith(".html")]
    return {key: storage.read(key) for key in keys}


# --- twice, at once, killed, delivered again ------------------------------------------------------


def test_replaying_twice_publishes_once(empty, storage):
    validate(SPEC, empty, WEEK, refused_week())
    first = replay(storage, RENAME)
    assert publication.publish_batch(SPEC, storage, first)
    feature_sets.materialize(SPEC, empty, BATCH)
    state = everything(storage)
    for mapping in (RENAME, None):
        again = replay(storage, mapping)
        assert again == first
        assert not publication.publish_batch(SPEC, storage, again)
    assert everything(storage) == state


def test_same_files_delivered_again_stay_repaired(empty, storage):
    # an ingest run that was cleared used to undo the replay
    validate(SPEC, empty, WEEK, refused_week())
    report = replay(storage, RENAME)
    publication.publish_batch(SPEC, storage, report)
    feature_sets.materialize(SPEC, empty, BATCH)
    again = validate(SPEC, empty, WEEK, refused_week())
    assert again == report
    assert not publication.publish_batch(SPEC, storage, again)


def test_other_files_are_read_as_they_are(empty, storage):
    validate(SPEC, empty, WEEK, refused_week())
    replay(storage, RENAME)
    report = validate(SPEC, empty, WEEK, refused_week().iloc[:-5])
    assert (report.status, report.mapping) == ("refused", None)


def test_later_mapping_takes_the_place_of_the_first(empty, storage):
    validate(SPEC, empty, WEEK, misspelt_week())
    wrong = replay(storage, DeliveryMapping(replacements={"origin": {"Newark": "LGA"}}))
    right = replay(storage, NEWARK)
    assert wrong.identity != right.identity
    assert wrong.files["batch"] != right.files["batch"]
    assert (good(storage, right)["origin"].iloc[[3, 5, 8]] == "EWR").all()
    assert (good(storage, wrong)["origin"].iloc[[3, 5, 8]] == "LGA").all()


@pytest.mark.parametrize("step", ["mapping.json", "delivery.json", "staged", "validation.json"])
def test_replay_killed_anywhere_is_finished_by_the_next(empty, storage, monkeypatch, step):
    ingest(SPEC, empty, WEEK, week().iloc[:-100])
    before = publication.rows_in_force(SPEC, storage).parts.get(WEEK)
    validate(SPEC, empty, WEEK, misspelt_week())
    write = Storage.write

    def killed(self: Storage, key: str, content: bytes) -> None:
        if step in key:
            raise KeyboardInterrupt
        write(self, key, content)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            replay(storage, NEWARK)
    assert publication.rows_in_force(SPEC, storage).parts.get(WEEK) == before
    report = replay(storage, NEWARK)
    assert publication.publish_batch(SPEC, storage, report)
    assert publication.rows_in_force(SPEC, storage).parts.get(WEEK).content == report.identity
    assert report.rows_in == 6053 == report.rows_good + report.rows_quarantined


def test_replays_at_once_come_to_one_result(empty, storage, processes: ProcessPoolExecutor):
    validate(SPEC, empty, WEEK, refused_week())
    content = NEWARK.model_copy(update=RENAME.model_dump(include={"renames"})).model_dump_json()
    runs = [processes.submit(replay_quarantine, str(empty.home), WEEK, content) for _ in range(3)]
    reports = {run.result(timeout=120) for run in runs}
    assert len(reports) == 1
    report = ValidationReport.model_validate_json(reports.pop())
    part = publication.rows_in_force(SPEC, storage).parts.get(WEEK)
    assert (part.content, part.rows) == (report.identity, 6053)
    assert (report.status, report.rows_good) == ("accepted", 6053)


# --- what cannot be replayed ----------------------------------------------------------------------


def test_mapping_that_the_model_file_has_no_place_for_any_more_is_left_out_and_told(empty, storage):
    validate(SPEC, empty, WEEK, misspelt_week())
    both = {"origin": {"Newark": "EWR"}, "distance": {"-1": "200.5"}}
    assert replay(storage, DeliveryMapping(replacements=both)).rows_good == 6053

    def later(**source: object) -> ValidationReport:
        spec = SPEC.model_copy(update={"source": SPEC.source.model_copy(update=source)})
        report = quarantine.revalidate_batch(spec, storage, BATCH)
        assert validation.validate_batch(spec, storage, BATCH).identity == report.identity
        assert report.rows_in == report.rows_good + report.rows_quarantined == 6053
        return report

    def left_out(report: ValidationReport) -> Finding:
        (found,) = (one for one in report.findings if one.expectation.startswith("mapping"))
        return found

    whole = later(columns={**SPEC.source.columns, "distance": "integer"})
    assert whole.rows_quarantined == 2
    assert "'-1' -> '200.5', as column 'distance' is integer" in left_out(whole).detail
    gone = later(columns={n: k for n, k in SPEC.source.columns.items() if n != "origin"})
    assert (gone.status, left_out(gone).severity) == ("refused", "warning")  # the suite has it
    assert left_out(gone).detail.endswith("the model file has changed: column 'origin'")


def test_replay_does_not_override_a_delivery_that_came_meanwhile(empty, storage, monkeypatch):
    publication.publish_batch(SPEC, storage, validate(SPEC, empty, WEEK, misspelt_week()))
    real = validation.number_delivery

    def after_the_newer(*arguments, **named):
        monkeypatch.setattr(validation, "number_delivery", real)
        ingest(SPEC, empty, WEEK, week().iloc[1:])
        return real(*arguments, **named)

    monkeypatch.setattr(validation, "number_delivery", after_the_newer)
    with pytest.raises(Superseded, match="delivery 2 came meanwhile; nothing was changed"):
        replay(storage, NEWARK)
    part = publication.rows_in_force(SPEC, storage).parts[WEEK]
    assert (part.order, part.rows) == (2, 6052)
    assert quarantine.newest_report(SPEC, storage, BATCH).delivery == 2


def test_nothing_to_replay_is_said(empty, storage):
    with pytest.raises(NotPublished, match="was never validated; run flights__ingest for it"):
        replay(storage)
    validate(SPEC, empty, WEEK)
    with pytest.raises(DataError, match="no delivery is kept in"):
        replay(storage)


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        pytest.param(
            {"renames": {"dist": "distanse"}},
            "'distanse' is no column of batch; did you mean 'distance'",
            id="unknown-target",
        ),
        pytest.param({"replacements": {"orign": {}}}, "did you mean 'origin'", id="unknown-column"),
        pytest.param({"input": "wether"}, "no input 'wether'; allowed: batch, weather", id="input"),
        pytest.param(
            {"replacements": {"flight": {"1": "one"}}},
            "'flight' must be integer, got 'one'",
            id="value-of-another-type",
        ),
    ],
)
def test_mapping_that_names_what_is_not_there_changes_nothing(empty, storage, mapping, says):
    report = validate(SPEC, empty, WEEK, refused_week())
    with pytest.raises(DataError, match=says):
        replay(storage, DeliveryMapping(**mapping))
    assert not storage.exists(f"{folder_of(report)}/mapping.json")


def test_mapping_that_leads_to_a_refusal_is_not_kept(empty, storage):
    validate(SPEC, empty, WEEK, misspelt_week())
    mapped = replay(storage, NEWARK)
    wrong = DeliveryMapping(renames={"distance": "origin"}, reason="a slip", actor="ann")
    assert replay(storage, wrong).status == "refused"
    again = replay(storage)  # as it was read before
    assert (again.status, again.mapping) == ("accepted", NEWARK)
    assert good(storage, again).equals(good(storage, mapped))


def test_a_slip_in_a_mapping_is_told_and_never_green(empty, storage):
    validate(SPEC, empty, WEEK, misspelt_week())
    slip = DeliveryMapping(renames={"distanec": "distance"}, reason="a slip", actor="ann")
    report = replay(storage, slip)
    assert report.status == "refused"
    told = [one.detail for one in report.findings if one.expectation == "mapping_to_fit"]
    assert told[0].startswith(
        "'distance' is to be read from 'distanec', which no file has; did you mean 'distance'?"
    )
    assert replay(storage).mapping is None
    slip = NEWARK.model_copy(update={"replacements": {"origin": {"Newrk": "EWR"}}})
    report = replay(storage, slip)
    assert (report.status, report.rows_quarantined) == ("accepted", 5)
    told = [one.detail for one in report.findings if one.expectation == "mapping_to_fit"]
    assert told == ["no row holds 'Newrk', which is to be read as 'EWR'"]
    assert "mapping_to_fit" not in {one.expectation for one in replay(storage, NEWARK).findings}


def test_first_mapping_that_leads_to_a_refusal_leaves_none(empty, storage):
    before = validate(SPEC, empty, WEEK, misspelt_week())
    wrong = DeliveryMapping(renames={"distance": "origin"}, reason="a slip", actor="ann")
    assert replay(storage, wrong).status == "refused"
    again = validation.validate_batch(SPEC, storage, BATCH)  # the same files, by a cleared run
    assert (again.status, again.mapping) == ("accepted", None)
    assert again.rows_good == before.rows_good


@pytest.mark.parametrize("gone", [2, None])
def test_a_gap_in_the_numbers_of_deliveries_stops_nothing(empty, storage, gone):
    weeks = [week().head(3000), week().head(3001), week().head(3002)]
    for number, rows in enumerate(weeks, 1):
        assert validate(SPEC, empty, WEEK, rows).delivery == number
    if gone:
        storage.delete(shelf.delivery_key("flights", WEEK, gone))
    storage.write(f"{shelf.deliveries_folder('flights', WEEK)}/notes.txt", b"hands were here")
    assert validate(SPEC, empty, WEEK, weeks[2]).delivery == 3
    assert validate(SPEC, empty, WEEK, week().head(3003)).delivery == 4
    publication.publish_batch(SPEC, storage, validate(SPEC, empty, WEEK, week().head(3003)))


def test_batch_that_is_still_refused_publishes_nothing(empty, storage):
    validate(SPEC, empty, WEEK, refused_week())
    report = replay(storage, DeliveryMapping(renames={"no_such": "distance"}))
    assert report.status == "refused"
    with pytest.raises(BatchRefused, match="'distance' is missing"):
        publication.publish_batch(SPEC, storage, report)


def test_renaming_onto_a_column_that_is_there_is_refused(empty, storage):
    validate(SPEC, empty, WEEK, misspelt_week().assign(dist=1.0))
    report = replay(storage, RENAME)
    assert (report.status, report.findings[0].expectation) == ("refused", "column_to_appear_once")


def test_damaged_delivery_is_not_replayed(empty, storage):
    report = validate(SPEC, empty, WEEK, refused_week())
    folder = folder_of(report)
    storage.write(f"{folder}/batch/{WEEK}.parquet", b"")
    with pytest.raises(DataError, match=r"has other content by now.*deliver the files again"):
        replay(storage)


# --- from a shell ---------------------------------------------------------------------------------


@pytest.fixture
def shell(empty: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RETRAINING_HOME", str(empty.home))
    return empty


def test_shell_shows_and_replays(shell, storage, capsys):
    validate(SPEC, shell, WEEK, misspelt_week())
    assert main(["quarantine", "show", "flights", WEEK]) == 1
    shown = capsys.readouterr().out
    assert "accepted, 6,053 rows = 6,048 good + 5 quarantined" in shown
    assert "3 broke origin: column_values_to_be_in_set" in shown
    assert "2 broke distance: column_values_to_be_between" in shown

    asked = ["--replace", "origin:Newark=EWR", "--replace", "distance:-1=200", "--reason", "typo"]
    assert main(["quarantine", "replay", "flights", WEEK, *asked]) == 0
    told = capsys.readouterr().out
    assert "trigger flights__monitor" in told
    assert "from a shell: typo" in told
    assert "6,053 good + 0 quarantined" in told
    assert "nothing is in quarantine" in told
    report = publication.rows_in_force(SPEC, storage).parts.get(WEEK)
    assert report is not None
    assert report.rows == feature_sets.feature_set(SPEC, storage, BATCH).rows == 6053

    assert main(["quarantine", "replay", "flights", WEEK]) == 0
    assert "trigger" not in capsys.readouterr().out


def test_shell_says_what_is_wrong_with_a_request(shell, storage, capsys):
    validate(SPEC, shell, WEEK, refused_week())
    assert main(["quarantine", "replay", "flights", WEEK, "--rename", "dist"]) == 2
    assert "must look like OLD=NEW, got 'dist'" in capsys.readouterr().err
    assert main(["quarantine", "replay", "flights", WEEK, "--replace", "origin=EWR"]) == 2
    assert "COLUMN:OLD=NEW" in capsys.readouterr().err
    assert main(["quarantine", "show", "flights", "2013-01-15"]) == 2
    assert main(["quarantine", "replay", "flights", WEEK]) == 1  # still refused
    assert "refused, 6,053 rows" in capsys.readouterr().out


def test_reports_of_replays_are_kept_as_json(empty, storage):
    validate(SPEC, empty, WEEK, refused_week())
    report = replay(storage, RENAME)
    key = f"{shelf.report_folder('flights', WEEK)}/validation.json"
    assert json.loads(storage.read(key))["mapping"]["reason"] == "a new exporter"
    assert storage.read_record(key, ValidationReport) == report
