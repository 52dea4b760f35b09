from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.retraining import __main__ as cli
from include.retraining import shelf
from include.retraining.errors import DataError, RegistryError
from include.retraining.features import feature_sets
from include.retraining.records import TrainingSet
from include.retraining.registry import server, versions
from include.retraining.retrain import candidate as candidates
from include.retraining.retrain import reproduction
from include.retraining.retrain.reproduction import reproduce
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec, Range, Search
from include.retraining.storage import Storage
from tests.unit.pipeline import small_spec, train

SPEC = small_spec(training={"seed": 1})


def incident(settings: Settings, number: int) -> str:
    return versions.version(SPEC, settings, number).incident_id


def test_version_comes_out_the_same_and_progress_is_told(trained):
    told: list[str] = []
    found = reproduce(SPEC, trained, 1, tell=told.append)
    assert found.equal
    assert found.digest == found.registered_digest
    assert [line[:5] for line in told] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert not found.changed_since
    assert "equal: flights version 1 is reproduced" in reproduction.render(found)


def test_search_is_made_again(ingested):
    search = Search(n_iter=2, space={"max_leaf_nodes": Range(low=4, high=8)})
    spec = small_spec(training={"search": search, "cv_folds": 2})
    train(spec, ingested, "2013-01-21")
    assert reproduce(spec, ingested, 1).equal


def test_model_file_of_then_is_followed_and_that_it_changed_is_said(trained):
    now = small_spec(training={"seed": 77, "params": {"max_iter": 3}}, gate={"floor": 0.6})
    found = reproduce(now, trained, 1)
    assert found.equal
    assert {
        "training.seed: 1 then, 77 now",
        "training.params.max_iter: 10 then, 3 now",
        "training.params.early_stopping: false then, null now",
        "gate.floor: 0.53 then, 0.6 now",
    } == set(found.changed_since)


def test_changed_row_is_found_out(trained):
    joined = feature_sets.joined_rows(SPEC, Storage.of(trained))
    (path,) = joined.parts["2013-01-07"].files
    table = pq.read_table(path, partitioning=None)
    place = table.column_names.index("temp")
    pq.write_table(table.set_column(place, "temp", pa.array([50.0] * table.num_rows)), path)
    found = reproduce(SPEC, trained, 1)
    assert not found.equal
    assert "rows: " in found.differences[0]
    assert "were changed since" in found.differences[0]
    assert "rows differ, by up to" in found.differences[1]
    assert "different: flights version 1 is not reproduced" in reproduction.render(found)


def test_other_digest_in_the_registry_is_found_out(trained):
    server.client(trained).set_model_version_tag("flights", "1", versions.DIGEST_TAG, "beef")
    found = reproduce(SPEC, trained, 1)
    assert found.differences == (
        "digest: the registered model does not have the registered digest; its tag changed",
    )


def test_other_packages_and_commit_are_said(trained, monkeypatch):
    before = candidates.environment()
    monkeypatch.setattr(candidates, "environment", lambda: ["new-one==1.0", *before[:-1]])
    monkeypatch.setattr(candidates, "git_commit", lambda _: "another")
    found = reproduce(SPEC, trained, 1)
    name, version = before[-1].split("==")
    assert found.equal
    assert "new-one: not installed then, 1.0 now" in found.changed_since
    assert f"{name}: {version} then, not installed now" in found.changed_since
    assert found.changed_since[-1].endswith("another now")


def test_what_is_not_there_is_named(trained):
    with pytest.raises(RegistryError, match="no version 9"):
        reproduce(SPEC, trained, 9)
    incident_id = versions.version(SPEC, trained, 1).incident_id
    Storage.of(trained).delete(shelf.key_of(TrainingSet, "flights", incident_id))
    with pytest.raises(RegistryError, match="no digest or no training set"):
        reproduce(SPEC, trained, 1)
    for path in (trained.home / "mlflow-artifacts").rglob(shelf.SPEC_ARTIFACT):
        path.write_text('{"model": "flights"}')
    with pytest.raises(DataError, match="cannot be read by this release"):
        reproduce(SPEC, trained, 2)
    for path in (trained.home / "mlflow-artifacts").rglob(shelf.SPEC_ARTIFACT):
        path.unlink()
    with pytest.raises(
        DataError, match=f"{shelf.SPEC_ARTIFACT} is not there.*cannot be reproduced"
    ):
        reproduce(SPEC, trained, 3)


@pytest.mark.parametrize(("number", "status"), [(1, 0), (2, 1), (9, 2)])
def test_command_says_equal_different_or_wrong_use(trained, monkeypatch, capsys, number, status):
    monkeypatch.setenv("RETRAINING_HOME", str(trained.home))
    server.client(trained).set_model_version_tag("flights", "2", versions.DIGEST_TAG, "beef")
    assert cli.main(["reproduce", "flights", "--version", str(number)]) == status
    out, err = capsys.readouterr()
    assert "[1/4] what flights version" in err
    assert {0: "equal: flights", 1: "different: flights", 2: "error: flights has no version 9"}[
        status
    ] in out + err


def test_specs_survive_being_kept(flights):
    search = Search(n_iter=2, space={"a": Range(low=4, high=8), "b": (1, "x", None)})
    spec = small_spec(training={"search": search})
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec
