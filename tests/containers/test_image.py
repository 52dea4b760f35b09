"""The image's steps run here too, and what it copies is all that the DAGs need."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import get_args

import pytest

from include.retraining.names import Stage
from tests.containers.stack import (
    ROOT,
    compose,
    copy_like_the_dockerfile,
    env_file,
    environment,
    image_environment,
    instructions,
)

SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
FILES = [
    *SCRIPTS,
    *(
        ROOT / name
        for name in (
            "Dockerfile",
            ".dockerignore",
            "docker-compose.yaml",
            ".env.example",
            ".ci/run",
        )
    ),
]
PARSE = """
import json, sys
from pathlib import Path
from typing import get_args
sys.path[:0] = ["plugins"]
from airflow.dag_processing.dagbag import BundleDagBag
bag = BundleDagBag("dags", bundle_path=Path.cwd(), bundle_name="retraining")
print(json.dumps({"dags": sorted(bag.dags), "errors": bag.import_errors}))
"""
IMPORT_ALL = """
import importlib, sys
from pathlib import Path
from typing import get_args
sys.path[:0] = ["plugins"]
for folder, root in (("include/retraining", "."), ("feature_repo", "."), ("plugins", "plugins")):
    for path in sorted(Path(folder).rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        importlib.import_module(name)
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """What the image has below /opt/retraining."""
    target = tmp_path_factory.mktemp("image")
    copy_like_the_dockerfile(target)
    return target


def run(code: str, bundle: Path) -> subprocess.CompletedProcess[str]:
    """Run Python as in the scheduler's container, with its folders moved to the bundle."""
    of_scheduler = environment(compose(env_file(ROOT / ".env.example"))["services"]["scheduler"])
    moved = {
        name: value.replace("/opt/retraining", str(bundle)).replace(
            "/opt/airflow", str(bundle / "home")
        )
        for name, value in (image_environment() | of_scheduler).items()
        if name != "PATH"
    }
    # reading options of the database section connects to nothing, but the driver must be there
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=bundle,
        env={"PATH": os.environ["PATH"], "HOME": str(bundle)} | moved,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_executable_strict_and_clean(script: Path):
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_no_file_names_a_host_of_the_internet(file: Path):
    found = re.findall(r"[\w.-]+\.(?:com|org|net|io|dev|cloud)\b", file.read_text())
    assert found == []


def test_the_dags_load_from_what_the_image_copies(bundle: Path):
    answer = run(PARSE, bundle)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.splitlines()[-1])
    assert found["errors"] == {}
    stages = [f"{model}__{stage}" for model in ("churn", "flights") for stage in get_args(Stage)]
    assert found["dags"] == sorted([*stages, "churn__outcomes"])


def test_everything_that_tasks_import_is_in_the_image(bundle: Path):
    answer = run(IMPORT_ALL, bundle)
    assert answer.returncode == 0, answer.stderr


def test_the_model_files_are_fine_in_the_image(bundle: Path):
    answer = run(
        "from include.retraining.__main__ import main; raise SystemExit(main(['lint']))", bundle
    )
    assert answer.returncode == 0, answer.stderr


def test_the_image_has_the_preloading_of_the_scheduler(bundle: Path):
    copies = [arguments.split() for name, arguments in instructions() if name == "COPY"]
    assert ["include/demo/airflow_local_settings.py", "/opt/airflow/config/"] in copies
    assert image_environment()["AIRFLOW_HOME"] == "/opt/airflow"
    assert (bundle / "include" / "demo" / "airflow_local_settings.py").is_file()


def test_the_image_does_not_run_as_root():
    users = [arguments for name, arguments in instructions() if name == "USER"]
    assert users[-1].split(":")[0] == "50000"


def test_the_build_context_is_what_the_dockerfile_copies_and_no_more():
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source.split("/")[0]
        for name, arguments in instructions()
        if name == "COPY"
        for source in arguments.split()[:-1]
    }
    assert let_in == copied
    for never in ("var", ".venv", ".git", ".env", "tests", "docs", "benchmarks"):
        assert not any(fnmatch.fnmatch(never, pattern) for pattern in let_in), never
    assert all((ROOT / name).exists() for name in let_in)


def test_install_makes_a_byte_compiled_environment(tmp_path: Path):
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("uv is not in this environment")
    wheel = tmp_path / "probe-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("probe.py", "ANSWER = 42\n")
        archive.writestr(
            "probe-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n"
        )
        archive.writestr(
            "probe-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("probe-1.0.dist-info/RECORD", "")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"{wheel}\n")
    venv = tmp_path / "venv"

    subprocess.run(
        ["bash", ROOT / "scripts" / "install.sh", venv, requirements],
        env=os.environ | {"PATH": f"{uv.parent}:{os.environ['PATH']}", "PYTHON": sys.executable},
        check=True,
    )

    answer = subprocess.check_output(
        [venv / "bin" / "python", "-c", "import probe; print(probe.ANSWER)"]
    )
    assert answer == b"42\n"
    assert list(venv.rglob("probe.*.pyc"))


def test_the_entrypoint_runs_any_other_command_as_it_is():
    entrypoint = ROOT / "scripts" / "entrypoint.sh"
    answer = subprocess.check_output(["bash", entrypoint, "printf", "%s", "a b"])
    assert answer == b"a b"


def test_every_command_of_the_compose_file_is_one_of_the_entrypoint():
    text = (ROOT / "scripts" / "entrypoint.sh").read_text()
    cases = {word for line in re.findall(r"(?m)^([\w| -]+)\)$", text) for word in line.split(" | ")}
    services = compose(env_file(ROOT / ".env.example"))["services"]
    commands = {service["command"][0] for service in services.values() if "build" in service}
    assert commands <= cases


def test_a_script_of_shell_passes_shellcheck_where_there_is_one():
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run([shellcheck, "--severity=warning", *SCRIPTS, ROOT / ".ci" / "run"], check=True)
