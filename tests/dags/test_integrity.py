"""The DAG files load, cheaply, and a wrong model file does not take the others with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from include.retraining.names import Stage
from tests.airflow_home import BUNDLE, ROOT

HEAVY = {
    "boto3",
    "duckdb",
    "evidently",
    "feast",
    "great_expectations.core",
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
    "slack_sdk",
}
PARSE = """
import json, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1] + "/plugins"]
from airflow.dag_processing.dagbag import BundleDagBag
before = set(sys.modules)
bag = BundleDagBag(sys.argv[1] + "/dags", bundle_path=Path(sys.argv[1]), bundle_name="retraining")
print(json.dumps({
    "dags": sorted(bag.dags),
    "files": {name: dag.relative_fileloc for name, dag in bag.dags.items()},
    "errors": bag.import_errors,
    "modules": sorted(set(sys.modules) - before),
}))
"""


def parse(bundle: Path, code: str = PARSE) -> dict:
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(bundle)],
        capture_output=True,
        text=True,
        check=True,
        cwd=bundle,
        env={
            **os.environ,
            "PYTHONPATH": "",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(bundle / "plugins"),
        },
    )
    return json.loads(answer.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def parsed() -> dict:
    return parse(ROOT)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of what the DAG files need, to spoil."""
    for folder in ("dags", "plugins", "include"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path


def test_every_dag_file_loads_without_errors(parsed):
    assert parsed["errors"] == {}


def test_every_model_has_one_dag_per_stage(parsed):
    models = sorted(path.stem for path in (ROOT / "include" / "models").glob("*.yaml"))
    assert models == ["churn", "flights"]
    stages = [f"{model}__{stage}" for model in models for stage in get_args(Stage)]
    assert parsed["dags"] == sorted([*stages, "churn__outcomes"])


def test_every_dag_belongs_to_the_file_of_its_stage(parsed):
    # where its code is shown, and which file a task reads again
    for name, file in parsed["files"].items():
        assert file == f"dags/{name.partition('__')[2]}.py"


def test_parsing_imports_no_heavy_library(parsed):
    roots = {module.split(".")[0] for module in parsed["modules"]} | set(parsed["modules"])
    assert roots & HEAVY == set()


def test_a_misspelt_key_is_an_import_error_that_names_file_line_and_nearest_key(bundle):
    models = bundle / "include" / "models"
    good = (models / "flights.yaml").read_text()
    bad = good.replace("model: flights", "model: planes").replace("maturity_days:", "maturty_days:")
    (models / "planes.yaml").write_text(bad)
    line = next(n for n, text in enumerate(bad.splitlines(), 1) if "maturty_days" in text)

    found = parse(bundle)

    (error,) = found["errors"].values()
    assert f"planes.yaml:{line}: label.maturty_days" in error
    assert "did you mean 'maturity_days'?" in error
    assert [name for name in found["dags"] if name.startswith("flights__")] == sorted(
        f"flights__{stage}" for stage in get_args(Stage)
    )
    assert not any(name.startswith("planes__") for name in found["dags"])


TOO_LONG = "m" * 240
FAR = "landing_timeout_hours: 1.0e+12"


def with_wrong_models(bundle: Path) -> None:
    """Add two models whose files read well, and of which Airflow can make no DAGs."""
    models = bundle / "include" / "models"
    good = (models / "flights.yaml").read_text()
    (models / "a_long_name.yaml").write_text(good.replace("model: flights", f"model: {TOO_LONG}"))
    patient = good.replace("model: flights", "model: patient")
    assert "landing_timeout_hours: 48" in patient
    (models / "patient.yaml").write_text(patient.replace("landing_timeout_hours: 48", FAR))


def test_a_model_that_airflow_can_make_no_dags_of_takes_no_other_with_it(bundle):
    with_wrong_models(bundle)
    (bundle / "include" / "models" / "weekly.yaml").write_text(
        (bundle / "include" / "models" / "flights.yaml")
        .read_text()
        .replace("model: flights", "model: weekly")
        .replace('schedule: "0 12 * * 1"', 'schedule: "0 12 * * funday"')
    )

    found = parse(bundle)

    stages = set(get_args(Stage))
    loaded = {model: set() for model in ("churn", "flights", "weekly")}
    outcomes = {name for name in found["dags"] if name.endswith("__outcomes")}
    for name in set(found["dags"]) - outcomes:
        model, _, stage = name.partition("__")
        loaded[model].add(stage)
    # what cannot be made is there as a DAG that says why
    assert loaded == dict.fromkeys(loaded, stages)
    (error,) = found["errors"].values()
    lines = error.splitlines()
    assert any("a_long_name.yaml" in line and "at most 100 characters" in line for line in lines)
    assert any("patient.yaml" in line and "less than or equal to 8760" in line for line in lines)


def test_a_task_makes_the_dags_of_its_own_model_alone(bundle):
    with_wrong_models(bundle)
    own = """
from airflow.sdk.definitions._internal.dag_parsing_context import _airflow_parsing_context_manager
with _airflow_parsing_context_manager(dag_id="churn__ingest", task_id="validate_batch"):
    bag = BundleDagBag("""
    answer = parse(bundle, PARSE.replace("bag = BundleDagBag(", own.lstrip()))
    assert answer["dags"] == sorted(f"churn__{stage}" for stage in (*get_args(Stage), "outcomes"))


def test_the_bundle_ignores_everything_but_its_dag_files():
    from airflow.utils.file import list_py_file_paths

    found = {Path(path).relative_to(ROOT).parts[0] for path in list_py_file_paths(ROOT)}
    assert found == {"dags"}


def test_the_bundle_of_these_tests_is_this_repository():
    bundles = json.loads(os.environ["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    assert bundles[0]["name"] == BUNDLE


def test_a_python_file_at_the_root_is_no_dag_file(tmp_path):
    """A git bundle has the whole repository as its folder."""
    from airflow.utils.file import list_py_file_paths

    shutil.copy(ROOT / ".airflowignore", tmp_path)
    for name in ("setup.py", "conftest.py", "dags/ingest.py", "include/a.py", "tests/dags/b.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("from airflow.sdk import DAG  # a dag\n")
    found = [os.path.relpath(path, tmp_path) for path in list_py_file_paths(tmp_path)]
    assert found == ["dags/ingest.py"]
