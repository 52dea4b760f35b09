"""Every batch of the corpus gets its verdict; nothing is lost, half-written or a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from include.retraining.data import publication, validation
from include.retraining.errors import BatchRefused
from include.retraining.storage import Storage
from tests.airflow_home import ROOT
from tests.data_corpus import PARTITION, Case, cases, spec_of, table

CASES = cases()


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite that says nothing: what is caught is caught for every model."""
    folder = tmp_path_factory.mktemp("suites")
    (folder / "corpus.json").write_text(json.dumps({"name": "corpus", "expectations": []}))
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.suffix}-{case.name}")
def test_batch_gets_its_verdict(tmp_path: Path, suites: Path, case: Case):
    storage, spec = Storage(tmp_path.as_uri()), spec_of(case.suffix)
    files = case.files()
    for name, content in files.items():
        storage.write(f"landing/{name}", content)
    storage.write(f"landing/{PARTITION}/_SUCCESS", b"")
    report = validation.validate_batch(spec, storage, spec.batch_ref(PARTITION), suites=suites)

    counts = report.rows_in, report.rows_quarantined if report.status == "accepted" else 0
    assert (report.status, *counts) == (case.verdict, case.rows_in, case.quarantined), report
    notable = report.findings
    assert bool(notable) == bool(case.expectation)
    assert case.expectation in {f.expectation for f in notable} | {""}
    assert case.says in " | ".join(f.detail for f in notable)
    assert all(len(f.detail) < 1000 and "\n" not in f.detail for f in notable)
    assert report.rows_in == report.rows_good + report.rows_quarantined

    kept = (
        {
            key.rpartition("/")[2]: storage.read(key)
            for key in storage.list(
                f"{report.quarantine_key}/delivery-{report.content_sha256[:12]}"
            )
            if not key.endswith("/delivery.json")
        }
        if report.quarantine_key
        else {}
    )
    if report.status == "refused":  # otherwise all rows are in the tables
        assert kept == {name.rpartition("/")[2]: content for name, content in files.items()}
    if report.status == "refused":
        assert not storage.list("corpus/tables")
        with pytest.raises(BatchRefused):
            publication.publish_batch(spec, storage, report)
    else:
        good = storage.read_table(report.files["batch"])
        assert good.num_rows == report.rows_good
        good.validate(full=True)


def test_corpus_is_large_and_each_case_has_a_name_of_its_own():
    names = [(case.suffix, case.name) for case in CASES]
    assert len(set(names)) == len(names) >= 240


def test_table_in_the_docs_is_that_of_the_corpus():
    page = (ROOT / "docs" / "bad-input.md").read_text()
    assert table() in page, "paste `python -m tests.data_corpus`"
    assert f"<summary>{len(CASES)} kinds" in page
    assert f"{len(CASES)} kinds" in (ROOT / "README.md").read_text()
