from __future__ import annotations

from pathlib import Path

import pytest

from include.retraining.errors import SpecError
from include.retraining.settings import REPOSITORY, Settings


def test_without_settings_all_state_is_below_the_checkout():
    settings = Settings.from_env({})
    assert settings.home == REPOSITORY / "var" / "demo"
    assert settings.storage_url == f"file://{REPOSITORY}/var/demo/storage"
    assert settings.mlflow_tracking_uri == f"sqlite:///{REPOSITORY}/var/demo/mlflow.db"
    assert settings.feast_registry.startswith("sqlite:///")


def test_environment_fills_settings_and_overrides_win():
    environ = {"RETRAINING_STORAGE_URL": "s3://bucket", "RETRAINING_HOME": "/a", "OTHER": "x"}
    settings = Settings.from_env(environ, home="/b")
    assert settings.storage_url == "s3://bucket"
    assert settings.home == Path("/b")
    assert settings.mlflow_tracking_uri == "sqlite:////b/mlflow.db"


def test_unset_variable_of_a_compose_file_counts_as_not_given():
    assert Settings.from_env({"RETRAINING_HOME": "", "RETRAINING_PRELOAD": ""}) == Settings()


def test_relative_home_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_env({"RETRAINING_HOME": "state"})
    assert settings.home == tmp_path / "state"
    assert settings.storage_url == f"file://{tmp_path}/state/storage"


def test_misspelt_variable_is_refused_with_the_nearest_name():
    with pytest.raises(SpecError, match="did you mean 'RETRAINING_STORAGE_URL'"):
        Settings.from_env({"RETRAINING_STORAGE_ULR": "x"})


def test_value_that_is_none_is_a_spec_error_that_names_the_variable():
    with pytest.raises(SpecError, match=r"RETRAINING_PRELOAD: .* got 'maybe'"):
        Settings.from_env({"RETRAINING_PRELOAD": "maybe"})


def test_environment_of_the_process_is_the_default(monkeypatch):
    monkeypatch.setenv("RETRAINING_COMMIT", "abc")
    assert Settings.from_env().commit == "abc"


@pytest.mark.parametrize(
    "name",
    ["RETRAINING_SERVICE_HOST", "RETRAINING_PORT", "RETRAINING_PORT_80_TCP_ADDR",
     "RETRAINING_WEB_SERVICE_PORT_HTTP"],
)  # fmt: skip
def test_service_links_of_kubernetes_are_left_out_with_a_warning(name, caplog):
    assert Settings.from_env({name: "10.0.0.7"}) == Settings.from_env({})
    assert name in caplog.text


@pytest.mark.parametrize(
    ("url", "says"),
    [("/data/state", "must be a URL"), ("s4://bucket/x", "no storage is known by s4://")],
)
def test_storage_that_is_no_url_is_refused_with_what_is(url, says):
    with pytest.raises(SpecError, match=f"RETRAINING_STORAGE_URL: .*{says}"):
        Settings.from_env({"RETRAINING_STORAGE_URL": url})
