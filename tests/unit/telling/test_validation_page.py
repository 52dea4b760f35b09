from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from include.demo import flights_feed
from include.retraining.data import validation
from include.retraining.records import DeliveryMapping, ValidationReport
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, ModelSpec, load_spec
from include.retraining.storage import Storage
from include.retraining.telling import alerts
from include.retraining.telling.validation_page import publish_page, validation_page

WEEK = "2013-01-14"

SPEC = load_spec(MODELS_DIR / "flights.yaml")


class Tags(HTMLParser):
    """Collects the tags of a page, and what they refer to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str | None] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href", "srcdoc"}]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path.as_uri())


def page_of(storage: Storage, report: ValidationReport) -> str:
    key = f"flights/reports/partition={WEEK}/validation.html"
    assert report.page_key == key == publish_page(SPEC, storage, report)
    return storage.read(key).decode()


def test_page_tells_the_verdict_the_versions_and_holds_the_data_docs(flights: ModelSpec, storage):
    batch = flights.batch_ref(WEEK)
    frame = flights_feed.flights_of(batch).copy()
    frame.loc[:9, "distance"] = -1.0
    flights_feed.land(storage, batch, frame)
    report = validation.validate_batch(flights, storage, batch)
    page = page_of(storage, report)
    assert "flights 2013-01-14: <span class=accepted>accepted" in page
    assert "6,053 = 6,043 good + 10 quarantined" in page
    assert "10 of 6053 rows, such as -1.0" in page
    for version in (report.content_sha256, report.suite_sha256, report.source_sha256):
        assert len(version) == 64
        assert version in page
    assert "values must be greater than or equal to 1.0 and less than or equal to 6000.0" in page
    assert "<td>not met</td>" in page
    assert "Data Docs: weather" in page
    assert "observed_at" in page


def test_page_needs_nothing_from_anywhere_and_runs_nothing(flights: ModelSpec, storage):
    batch = flights.batch_ref(WEEK)
    flights_feed.land(storage, batch)
    page = page_of(storage, validation.validate_batch(flights, storage, batch))
    tags = Tags(page)
    assert tags.addresses == []
    assert not {"script", "link", "img", "iframe"} & set(tags.tags)
    assert "default-src 'none'" in page


def test_batch_that_cannot_be_read_has_a_page_too(flights: ModelSpec, storage):
    batch = flights.batch_ref(WEEK)
    flights_feed.land(storage, batch)
    storage.write(f"landing/flights/{WEEK}.parquet", b"")
    storage.write(f"landing/weather/{WEEK}.parquet", b"")
    page = page_of(storage, validation.validate_batch(flights, storage, batch))
    assert "<span class=refused>refused" in page
    assert "the file is empty" in page
    assert "Data Docs" not in page


def test_what_a_file_holds_is_text_on_the_page_and_never_a_tag(flights: ModelSpec, storage):
    batch = flights.batch_ref(WEEK)
    frame = flights_feed.flights_of(batch).copy()
    frame.loc[:5, "origin"] = "</td><script>alert(1)</script>"
    frame["<img src=x>"] = 1
    flights_feed.land(storage, batch, frame)
    report = validation.validate_batch(flights, storage, batch)
    page = page_of(storage, report)
    assert "alert(1)" in page
    assert not {"script", "img"} & set(Tags(page).tags)
    mapped = report.model_copy(update={"mapping": DeliveryMapping(reason="<b>bold</b>")})
    assert "b" not in Tags(validation_page(mapped, {}).decode()).tags


def test_versions_of_suite_and_source_change_with_their_files(
    flights: ModelSpec, storage, tmp_path: Path
):
    batch = flights.batch_ref(WEEK)
    flights_feed.land(storage, batch)
    before = validation.validate_batch(flights, storage, batch)
    suites = tmp_path / "suites"
    suites.mkdir()
    for path in validation.SUITES.glob("flights*.json"):
        (suites / path.name).write_text(path.read_text() + "\n")
    suite = validation.validate_batch(flights, storage, batch, suites=suites)
    assert suite.suite_sha256 != before.suite_sha256
    assert suite.source_sha256 == before.source_sha256
    columns = flights.source.columns | {"tailnum": "string"}
    source = flights.source.model_copy(update={"columns": columns})
    other = flights.model_copy(update={"source": source})
    changed = validation.validate_batch(other, storage, batch)
    assert changed.source_sha256 != before.source_sha256
    assert len({one.identity for one in (before, suite, changed)}) == 3
    same = flights.model_copy(update={"owner": "somebody else"})
    assert validation.validate_batch(same, storage, batch).identity == before.identity


def test_alert_links_to_the_page_where_a_browser_sees_the_storage(flights: ModelSpec, storage):
    batch = flights.batch_ref(WEEK)
    frame = flights_feed.flights_of(batch).drop(columns="distance")
    flights_feed.land(storage, batch, frame)
    report = validation.validate_batch(flights, storage, batch)
    alert = alerts.of_validation(report, pages="https://reports.example/lake")
    assert f"<https://reports.example/lake/{report.page_key}|Data Docs>" in alert.text
    bare = alerts.of_validation(report)
    assert "Data Docs" not in bare.text
    assert bare.fact_id == alert.fact_id


def test_pages_are_where_the_storage_is_unless_it_is_said(tmp_path: Path):
    assert Settings(home=tmp_path).storage_page_url == f"file://{tmp_path}/storage"
    assert Settings(storage_url="s3://lake/x").storage_page_url == "s3://lake/x"
    said = Settings(storage_url="s3://lake/x", storage_page_url="https://pages")
    assert said.storage_page_url == "https://pages"
