"""What is published of a batch: a run in MLflow, and a page where there is something to see."""

from __future__ import annotations

import datetime as dt

import pytest
from mlflow.utils.validation import _validate_metric, _validate_metric_name

from include.retraining import shelf
from include.retraining.errors import RegistryError
from include.retraining.monitor import measuring
from include.retraining.records import (
    BatchRef,
    DriftReport,
    FeatureDrift,
    Outcome,
    Performance,
    PublishedReport,
    Verdict,
)
from include.retraining.registry import server
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from include.retraining.telling import drift_report
from include.retraining.telling.drift_pages import shared_script
from include.retraining.telling.drift_report import is_news
from tests.unit import pipeline

THIRD, FOURTH = pipeline.WEEKS[2:]


@pytest.fixture
def settings(trained: Settings) -> Settings:
    """Version 1, trained on the first two weeks, is champion."""
    server.client(trained).set_registered_model_alias("flights", "champion", "1")
    return trained


def measured(spec: ModelSpec, settings: Settings, partition: str) -> DriftReport:
    return measuring.measure_drift(spec, settings, spec.batch_ref(partition))


def judged(settings: Settings, report: DriftReport, outcome: Outcome) -> Verdict:
    verdict = Verdict(
        batch=report.batch,
        outcome=outcome,
        reasons=("said in a test",),
        content_sha256=report.content_sha256,
        champion_version=report.champion_version,
        incident_id=outcome,
    )
    shelf.keep(Storage.of(settings), verdict)
    return verdict


def published(
    spec: ModelSpec, settings: Settings, report: DriftReport, outcome: Outcome = "watch"
) -> PublishedReport:
    return drift_report.publish_report(spec, settings, report, judged(settings, report, outcome))


def logged(settings: Settings, done: PublishedReport) -> set[str]:
    return {file.path for file in server.client(settings).list_artifacts(done.run_id)}


def with_drift(report: DriftReport, *names: str, **changes: object) -> DriftReport:
    features = tuple(
        f.model_copy(update={"drifted": f.name in names, "expected": False})
        for f in report.features
    )
    return report.model_copy(update={"features": features, "score": None, **changes})


def test_news_is_published_with_a_picture_in_mlflow_and_a_page_in_storage(settings):
    spec, storage = pipeline.small_spec(), Storage.of(settings)
    done = published(spec, settings, measured(spec, settings, FOURTH))
    assert done.pages == (shelf.drift_page_key(spec.model, FOURTH),)
    page = storage.read(done.pages[0])
    name, content = shared_script()
    assert f'<script src="../../../_assets/{name}">'.encode() in page
    assert storage.read(shelf.shared_script_key(name)) == content
    assert len(page) <= 300_000
    assert logged(settings, done) == {"drift.png", "drift_report.json"}
    tags = server.run_data(settings, done.run_id).tags
    assert tags["retraining.page"] == storage.url_of(done.pages[0])


def test_the_shared_script_is_written_once(settings):
    spec, storage = pipeline.small_spec(), Storage.of(settings)
    key = shelf.shared_script_key(shared_script()[0])
    storage.write(key, b"there")
    assert published(spec, settings, measured(spec, settings, FOURTH)).pages
    assert storage.read(key) == b"there"
    assert storage.list("_assets") == [key]


@pytest.mark.parametrize(
    ("before", "outcome", "shown"),
    [
        pytest.param("watch", "watch", False, id="goes on"),
        pytest.param("watch", "retrain", True, id="has become a reason to retrain"),
        pytest.param("watch", "blocked", True, id="has become blocked"),
        pytest.param("ignore", "watch", False, id="no other column"),
        pytest.param("blocked", "retrain", False, id="is still a reason"),
        pytest.param("retrain", "blocked", False, id="was a reason already"),
        pytest.param(None, "retrain", True, id="was not judged before"),
    ],
)
def test_drift_that_goes_on_is_shown_when_it_comes_to_matter(
    settings, before: Outcome | None, outcome: Outcome, shown: bool
):
    spec, storage = pipeline.small_spec(), Storage.of(settings)
    earlier = with_drift(measured(spec, settings, THIRD), "dep_hour")
    shelf.keep(storage, earlier)
    if before is not None:
        judged(settings, earlier, before)
    now = with_drift(measured(spec, settings, FOURTH), "dep_hour")
    done = published(spec, settings, now, outcome)
    assert bool(done.pages) is shown
    assert ("drift.png" in logged(settings, done)) is shown
    assert ("retraining.page" in server.run_data(settings, done.run_id).tags) is shown
    assert storage.exists(shelf.drift_page_key(spec.model, FOURTH)) is shown


def test_where_all_is_well_nothing_is_shown(settings):
    spec = pipeline.small_spec()
    done = published(spec, settings, measured(spec, settings, FOURTH), "ignore")
    assert done.pages == ()
    assert logged(settings, done) == {"drift_report.json"}


def test_without_a_champion_there_is_nothing_to_show(ingested):
    spec = pipeline.small_spec()
    done = published(spec, ingested, measured(spec, ingested, FOURTH), "retrain")
    assert done.pages == ()
    assert logged(ingested, done) == {"drift_report.json"}


@pytest.mark.parametrize(
    ("broken", "left"),
    [
        pytest.param("evidently_page", {"drift.png", "drift_report.json"}, id="page"),
        pytest.param("training_rows", {"drift.png", "drift_report.json"}, id="rows of the page"),
        pytest.param("picture", {"drift_report.json"}, id="picture"),
    ],
)
def test_what_cannot_be_drawn_is_logged_and_the_report_published(
    settings, monkeypatch, caplog, broken: str, left: set[str]
):
    def fail(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("the axis has no length")

    monkeypatch.setattr(drift_report, broken, fail)
    spec = pipeline.small_spec()
    done = published(spec, settings, measured(spec, settings, FOURTH))
    assert logged(settings, done) == left
    assert len(done.pages) == (broken == "picture")
    assert server.client(settings).get_run(done.run_id).info.status == "FINISHED"
    assert f"flights {FOURTH}: no p" in caplog.text
    assert "the axis has no length" in caplog.text


def test_a_page_of_which_evidently_can_draw_nothing_is_left_out(settings, monkeypatch, caplog):
    monkeypatch.setattr(drift_report, "evidently_page", lambda *a, **k: None)
    caplog.set_level("INFO")
    spec = pipeline.small_spec()
    done = published(spec, settings, measured(spec, settings, FOURTH))
    assert done.pages == ()
    assert "Evidently can draw none of" in caplog.text
    assert not Storage.of(settings).list("_assets")


def test_publishing_twice_gives_one_run(settings):
    spec = pipeline.small_spec()
    report = measured(spec, settings, FOURTH)
    first = published(spec, settings, report, "ignore")
    assert published(spec, settings, report, "ignore") == first
    tagged = "tags.`retraining.kind` = 'monitor'"
    runs = server.client(settings).search_runs([first.experiment_id], tagged)
    assert [run.info.run_id for run in runs] == [first.run_id]


def test_publishing_twice_tells_of_the_page_twice(settings):
    spec = pipeline.small_spec()
    report = measured(spec, settings, FOURTH)
    first = published(spec, settings, report, "watch")
    assert first.pages  # a task that was cleared lost its button
    assert published(spec, settings, report, "watch") == first


def test_an_unfinished_run_is_finished(settings):
    spec = pipeline.small_spec()
    report = measured(spec, settings, FOURTH)
    first = published(spec, settings, report)
    api = server.client(settings)
    api.set_terminated(first.run_id, "FAILED")
    again = published(spec, settings, report)
    assert again == first
    assert api.get_run(first.run_id).info.status == "FINISHED"


# --- news -----------------------------------------------------------------------------------------


def column(name: str, *, drifted: bool, expected: bool = False) -> FeatureDrift:
    return FeatureDrift(
        name=name, kind="numeric", distance=0.2, p_value=0.1, threshold=0.1, shift=-0.3,
        state="calibrated", drifted=drifted, expected=expected, reason="-",
    )  # fmt: skip


def report_of(*features: FeatureDrift, **changes: object) -> DriftReport:
    start = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
    batch = BatchRef(
        model="flights", partition="2013-01-01", start=start, end=start + dt.timedelta(days=1)
    )
    fields = {
        "batch": batch, "content_sha256": "0", "champion_version": 1, "state": "calibrated",
        "rows": 10, "labelled_rows": 0, "features": features,
    }  # fmt: skip
    return DriftReport.model_validate(fields | changes)


CALM, DRIFTED = column("x", drifted=False), column("x", drifted=True)


@pytest.mark.parametrize(
    ("before", "now", "news"),
    [
        pytest.param(None, report_of(CALM), True, id="the first report"),
        pytest.param(report_of(CALM), report_of(CALM), False, id="nothing drifted"),
        pytest.param(report_of(CALM), report_of(DRIFTED), True, id="a column drifted"),
        pytest.param(report_of(DRIFTED), report_of(DRIFTED), False, id="drift goes on"),
        pytest.param(report_of(DRIFTED), report_of(CALM), False, id="drift ended"),
        pytest.param(
            report_of(DRIFTED), report_of(column("y", drifted=True), CALM), True, id="another"
        ),
        pytest.param(
            report_of(CALM), report_of(CALM, champion_version=2), True, id="another champion"
        ),
        pytest.param(
            report_of(CALM), report_of(column("x", drifted=True, expected=True)), False,
            id="expected drift",
        ),
        pytest.param(
            report_of(column("x", drifted=True, expected=True)), report_of(DRIFTED), True,
            id="expected no more",
        ),
        pytest.param(
            report_of(CALM), report_of(CALM, score=column("score", drifted=True)), True,
            id="the predictions drifted",
        ),
    ],
)  # fmt: skip
def test_news_is_what_the_report_before_did_not_say(
    before: DriftReport | None, now: DriftReport, news: bool
) -> None:
    assert is_news(now, before) is news


# --- metrics --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("plain_name-1.x: y/z", "plain_name-1.x: y/z"),
        ("share%", "share_25"),
        ("a,b", "a_2cb"),
        ("größe", "größe"),
        ("a//b", "a_2f_2fb"),
        ("a/../b", "a_2f.._2fb"),
        ("a/", "a_2f"),
        ("x\n", "x_0a"),
    ],
)
def test_a_name_that_mlflow_refuses_is_encoded(column: str, name: str) -> None:
    asked, taken = f"distance.{column}", f"distance.{name}"
    assert server.accepted_names([asked]) == {asked: taken}
    _validate_metric_name(taken)


def test_names_that_become_equal_are_kept_apart_and_stay_what_they_are() -> None:
    long = "x" * 300
    columns = ["share%", "share_25", f"{long}a", f"{long}b", "", "€", "_20ac"]
    names = server.accepted_names(columns)
    assert len(set(names.values())) == len(columns)
    assert names["share_25"] == "share_25"
    assert names["share%"].startswith("share_25_")
    assert server.accepted_names(reversed(columns)) == names
    for name in names.values():
        _validate_metric(f"threshold.{name}", 0.1, 0, 0)
        assert len(name) < 250


def test_experiment_that_was_deleted_says_how_to_restore_it(empty):
    spec, api = pipeline.small_spec(), server.client(empty)
    found = server.experiment_id(spec, empty)
    api.delete_experiment(found)
    with pytest.raises(RegistryError, match=f"mlflow experiments restore -x {found}"):
        server.experiment_id(spec, empty)
    api.restore_experiment(found)
    assert server.experiment_id(spec, empty) == found


def test_all_columns_of_a_wide_table_are_logged_whatever_their_names(empty):
    names = ["share%", "share_25", "a,b", *(f"column {number}" for number in range(347))]
    performance = Performance(metric="roc_auc", rows=9, value=0.7, low=0.6, high=0.8)
    report = report_of(
        *(column(name, drifted=False) for name in names),
        score=column("score", drifted=False),
        performance=performance,
    )
    spec = pipeline.small_spec()
    done = published(spec, empty, report, "ignore")
    metrics = server.run_data(empty, done.run_id).metrics
    assert len(metrics) == 3 * 351 + 1
    assert metrics["shift.share_25"] == -0.3
    assert metrics["distance.a_2cb"] == 0.2
    assert metrics["threshold.column 346"] == 0.1
    assert metrics["realised.roc_auc"] == 0.7
