"""The compose file means what it should: to Compose, to Airflow, and to this bundle."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from include.retraining.settings import PREFIX, Settings
from tests.containers.stack import (
    ROOT,
    VARIABLE,
    bundle_path,
    compose,
    env_file,
    environment,
    image_environment,
)

ENV = env_file(ROOT / ".env.example")
STACK = compose(ENV)
SERVICES: dict[str, dict] = STACK["services"]
ONE_SHOT = {"init"}
AIRFLOW = {"api-server", "scheduler", "dag-processor", "triggerer"}


def variables() -> list[tuple[str, str, str]]:
    found = [(name, *item) for name in SERVICES for item in environment(SERVICES[name]).items()]
    return found + [("image", *item) for item in image_environment().items()]


def test_the_compose_file_follows_the_compose_specification():
    validator = Path(sys.executable).with_name("check-jsonschema")
    command = [validator, "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yaml"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_ci_workflow_follows_the_schema_of_workflows():
    validator = Path(sys.executable).with_name("check-jsonschema")
    workflow = ROOT / ".github" / "workflows" / "ci.yml"
    command = [validator, "--builtin-schema", "vendor.github-workflows", workflow]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_example_env_file_has_every_variable_without_a_default_and_no_other():
    text = (ROOT / "docker-compose.yaml").read_text()
    asked = {name for name, operator, _ in VARIABLE.findall(text) if operator != "-"}
    assert set(ENV) == asked


def test_no_secret_has_a_value_in_the_compose_file():
    text = (ROOT / "docker-compose.yaml").read_text()
    for name, secret in ENV.items():
        if name != "S3_BUCKET":
            assert secret not in re.findall(r"[\w=-]+", text), name


def test_the_example_fernet_key_is_one():
    from cryptography.fernet import Fernet

    Fernet(ENV["AIRFLOW_FERNET_KEY"])


def test_the_example_signing_keys_are_long_enough_for_sha512():
    assert min(len(ENV["AIRFLOW_JWT_SECRET"]), len(ENV["AIRFLOW_API_SECRET"])) >= 64


def test_every_retraining_variable_is_a_setting():
    fields = {PREFIX + field.upper() for field in Settings.model_fields}
    given = {name for _, name, _ in variables() if name.startswith(PREFIX)}
    assert given - fields == set()
    Settings.from_env(environment(SERVICES["scheduler"]))


def test_every_airflow_variable_is_an_option_of_airflow():
    from airflow.configuration import conf

    known = {
        f"AIRFLOW__{section}__{option}".upper()
        for section, description in conf.configuration_description.items()
        for option in description["options"]
    }
    given = {name for _, name, _ in variables() if name.startswith("AIRFLOW__")}
    assert given - known == set()


def test_every_connection_is_json_that_airflow_reads():
    from airflow.models.connection import Connection

    scheduler = environment(SERVICES["scheduler"])
    found = {
        name.removeprefix("AIRFLOW_CONN_").lower(): Connection.from_json(text)
        for name, text in scheduler.items()
        if name.startswith("AIRFLOW_CONN_")
    }
    assert set(found) == {"aws_default", "mlflow_default"}
    assert found["aws_default"].extra_dejson["endpoint_url"] == "http://s3:8333"
    assert found["mlflow_default"].host == "mlflow"


def test_every_component_of_airflow_has_the_same_keys_and_addresses():
    of_one = {"AIRFLOW_ADMIN_PASSWORD"}
    first, *others = (
        {k: v for k, v in environment(SERVICES[name]).items() if k not in of_one}
        for name in AIRFLOW | ONE_SHOT
    )
    assert all(other == first for other in others)


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ONE_SHOT))
def test_every_long_running_service_has_a_health_check_and_comes_back(name: str):
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_what_a_service_waits_for_can_come_true():
    for name, service in SERVICES.items():
        for needed, condition in service.get("depends_on", {}).items():
            expected = "completed_successfully" if needed in ONE_SHOT else "healthy"
            assert condition == {"condition": f"service_{expected}"}, (name, needed)


def test_ports_are_bound_to_the_loopback_interface_only():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_volume_is_named_and_declared():
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in STACK["volumes"] or (ROOT / source).is_file(), volume


def test_every_address_names_a_service():
    for service, name, value in variables():
        if "://" not in value or value.startswith("s3://"):
            continue
        for url in re.findall(r"[\w+]+://[^\s\",}]+", value):
            assert urlsplit(url).hostname in {*SERVICES, "127.0.0.1"}, (service, name)


def test_everything_is_kept_in_the_bucket_that_init_makes():
    scheduler, mlflow = environment(SERVICES["scheduler"]), environment(SERVICES["mlflow"])
    root = f"s3://{ENV['S3_BUCKET']}/"
    assert scheduler["RETRAINING_STORAGE_URL"].startswith(root)
    assert scheduler["RETRAINING_MLFLOW_ARTIFACT_URI"] == mlflow["MLFLOW_DEFAULT_ARTIFACT_ROOT"]
    assert mlflow["MLFLOW_DEFAULT_ARTIFACT_ROOT"].startswith(root)


def test_the_bundle_is_the_repository_root_of_the_image():
    image = image_environment()
    assert bundle_path(image) == "/opt/retraining"
    assert image["AIRFLOW__CORE__PLUGINS_FOLDER"] == "/opt/retraining/plugins"
    assert "PYTHONPATH" not in {name for _, name, _ in variables()}


def test_the_images_of_others_are_pinned():
    for name, service in SERVICES.items():
        if "build" not in service:
            assert re.fullmatch(r"[\w./-]+:\d[\w.-]*", service["image"]), name


def test_the_documentation_names_every_variable():
    text = (ROOT / "docs" / "production.md").read_text()
    asked = {*ENV, *(PREFIX + field.upper() for field in Settings.model_fields)}
    assert {name for name in asked if f"`{name}`" not in text} == set()
