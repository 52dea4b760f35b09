"""Reads docker-compose.yaml as Compose does, and the Dockerfile's copies, without either tool."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = re.compile(r"\$\{(\w+)(?::?([-?])([^}]*))?\}")


def env_file(path: Path) -> dict[str, str]:
    """The assignments of a .env file."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def compose(variables: dict[str, str]) -> dict:
    """docker-compose.yaml with anchors merged and variables put in."""

    def value(match: re.Match) -> str:
        name, operator, default = match.groups()
        if name in variables:
            return variables[name]
        if operator == "-":
            return default
        raise AssertionError(f"{name} is not in the .env file")

    return yaml.safe_load(VARIABLE.sub(value, (ROOT / "docker-compose.yaml").read_text()))


def environment(service: dict) -> dict[str, str]:
    """What a service's containers get; a variable without a value would come from .env."""
    given = service.get("environment", {})
    return {name: str(value) for name, value in given.items() if value is not None}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text()).replace("\\\n", " ")
    return [(line.split()[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def image_environment() -> dict[str, str]:
    """The image's own variables."""
    found: dict[str, str] = {}
    for name, arguments in instructions():
        if name == "ENV":
            found |= dict(item.split("=", 1) for item in shlex.split(arguments))
    return found


def copy_like_the_dockerfile(target: Path) -> None:
    """Lay out below `target` what the image has below /opt/retraining."""
    for name, arguments in instructions():
        if name != "COPY":
            continue
        *sources, destination = arguments.split()
        if destination.startswith("/"):
            continue
        for source in sources:
            place = target / destination
            if (ROOT / source).is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, place, ignore=ignore, dirs_exist_ok=True)
            else:
                place = place / Path(source).name if destination.endswith("/") else place
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / source, place)


def bundle_path(environ: dict[str, str]) -> str:
    """The folder of the only bundle that is configured."""
    (bundle,) = json.loads(environ["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    return str(bundle["kwargs"]["path"])
