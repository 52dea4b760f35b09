"""The documents are complete, and say what the code says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pyarrow as pa
import pytest

from include.retraining import records
from include.retraining.cli.settings_table import settings_table
from include.retraining.data.tables import Table
from include.retraining.storage import Storage
from tests.airflow_home import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_the_table_of_settings_is_that_of_the_model_file():
    page = (ROOT / "docs" / "adopting-a-model.md").read_text()
    assert settings_table() in page, "paste `python -m include.retraining schema --markdown`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_picture_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_wing_has_its_caption_in_the_architecture_page():
    page = (ROOT / "docs" / "architecture.md").read_text()
    wings = sorted((ROOT / "include" / "retraining").glob("*/__init__.py"))
    assert len(wings) == 10
    for path in wings:
        caption = path.read_text().split('"""')[1].splitlines()[0]
        assert f"`{path.parent.name}` | {caption}" in page


@pytest.mark.parametrize("name", ["duckdb", "pandas"])
def test_the_ways_to_query_a_table_work_as_they_are_written(name, tmp_path, capsys):
    page = (ROOT / "docs" / "architecture.md").read_text()
    code = re.search(rf"<!-- query: {name} -->\n```python\n(.*?)```", page, re.DOTALL)[1]
    storage = Storage(tmp_path.as_uri())
    rows = pa.table({"arr_delay": [1.0, None, 3.0]})
    for table in ("rows/batch", "joined"):
        key = f"flights/tables/{table}"
        Table(storage, key).replace("2013-01-07", rows, content="a" * 32, order=1)
    found: dict[str, object] = {}
    exec(code.replace("STORAGE", str(tmp_path)), found)
    if name == "pandas":
        assert found["frame"]["arr_delay"].sum() == 4
    else:
        assert "2013-01-07" in capsys.readouterr().out


ENDINGS = "bin|csv|db|html|js|json|jsonl|md|parquet|pkl|png|skops|txt|yaml|zip"
SPELT = re.compile(rf"[\w{{}}<>*/.-]*\.(?:{ENDINGS})\b")
# by module: file names that are neither keys nor names of artifacts; {} is what an f-string fills
ALLOWED = {
    # examples for people, and pages to read
    "cli/app.py": {
        "week1.parquet", "week2.parquet", "week9.parquet", "v2.zip", "model.schema.json",
        "docs/production.md", "2013-01-07.parquet", "w.parquet",
        "orders.csv", "loans/*.parquet",
    },
    "cli/check.py": {"include/models/*.yaml"},
    # files of this repository, and what it lands where the model file that it writes says
    "cli/new.py": {"docs/adopting-a-model.md", "{}.json", "{}.yaml", "model.schema.json"},
    "cli/new_model.py": {".parquet"},
    "cli/status.py": {"docs/adopting-a-model.md"},
    # a file of the one who asked, on the machine where they asked
    "cli/study.py": {"var/replay/<model>.png", "{}.png"},
    # the formats in which batches land
    "data/reading.py": {".parquet", ".csv", ".json", ".jsonl"},
    # of the store itself, below every model
    "storage.py": {"_store/one-winner.json"},
    "spec.py": {
        ".parquet", ".csv", ".json", ".jsonl", "/*.csv", "landing/{partition}/*.parquet",
    },
    # the Delta protocol: names of commits, checkpoints and data files
    "data/delta_log.py": {"{}.json", "{}.checkpoint.parquet", ".parquet"},
    "data/parts.py": {".parquet"},
    "data/tables.py": {"{}/{}-{}-{}.parquet"},
    # sources of Feast, which are wherever a user's definitions say
    "features/asof_store.py": {".parquet", "{}/{}.parquet", "/{}.parquet"},
    # files of this repository
    "data/validation.py": {"{}.json", "{}.{}.json"},
    "features/definitions.py": {"feature_store.yaml"},
    # what the embedded defaults put below RETRAINING_HOME
    "settings.py": {"mlflow.db", "feast-registry.db", "feast-online.db"},
    # names within the zip, and within MLflow's folder of a model
    "telling/audit.py": {
        "version.json", "model_file.json", "manifest.json", "ledger/{}.json", "requirements.txt",
        "environment/requirements.txt", "python_env.yaml", "conda.yaml",
    },
    # a file of Evidently's package
    "telling/drift_pages.py": {"index.js"},
}  # fmt: skip
# a key, or the beginning of one, with a fixed folder in it: {}/reports, landing/{}, or _delta_log
KEY = re.compile(r"(?:[\w{}=*.-]*/)+[\w{}=*.-]*")
WORD = re.compile(r"(?:^|/)[\w=.-]*[a-zA-Z]{2}[\w=.{}-]*(?:/|$)")
ALONE = re.compile(r"_[a-z]+(?:_[a-z]+)+/?")
ALLOWED_KEYS = {
    # where an example's file lands
    "cli/new_model.py": {"landing/{}/{partition}{}", "_rt_row"},
    # the Delta protocol
    "data/delta_log.py": {"_delta_log", "_last_checkpoint"},
    # a unit
    "drift/feed.py": {"km/h"},
    # names of Python, and of scikit-learn
    "data/tables.py": {"_as_known"},
    "learning/estimator.py": {"_validate_params"},
    # names in Airflow, and the folder of a feed in that of its model
    "names.py": {"retraining/{}", "{}/outcomes"},
    # of MLflow
    "registry/server.py": {"/health", "{}/MLmodel"},
    # of the store itself, below every model
    "storage.py": {"_store/probe-{}"},
    # names within the zip
    "telling/audit.py": {"environment/model/{}", "incident/{}", "reports/{}/{}"},
}


def spelt_keys(path: Path) -> set[str]:
    """Give the strings of a module that name a folder, and no file."""
    found = {text for text in texts_of(path) if KEY.fullmatch(text) and WORD.search(text)}
    found |= {text for text in texts_of(path) if ALONE.fullmatch(text)}
    return {text for text in found if not SPELT.search(text) and not text.endswith(".py")}


def spelt(path: Path) -> set[str]:
    """Give what in the strings of a module ends as a file does."""
    return {name for text in texts_of(path) for name in SPELT.findall(text)}


def texts_of(path: Path) -> list[str]:
    """Give the strings of a module, with {} for what is filled in; docstrings are left out."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, documented) and ast.get_docstring(node) is not None
    }
    strings = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr | ast.Constant) and node not in docstrings
    ]
    parts = {part for node in strings if isinstance(node, ast.JoinedStr) for part in node.values}
    return [_text(node) for node in strings if node not in parts]


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "{}"


def test_no_key_or_file_name_is_spelt_outside_of_the_shelf():
    domain = ROOT / "include" / "retraining"
    found = {
        str(path.relative_to(domain)): names
        for path in domain.rglob("*.py")
        if path != domain / "shelf.py" and (names := spelt(path))
    }
    assert found == ALLOWED, "move what is new to shelf.py, or say why it is none of its names"
    script = {"page.js", "/page.js", "retraining/page.js"}  # built from ui/, and never stored
    for path in [*ROOT.glob("dags/*.py"), *ROOT.glob("plugins/**/*.py")]:
        assert not spelt(path) - script, path


def test_no_folder_is_spelt_outside_of_the_shelf():
    # the folder of a table's log was spelt in three places
    domain = ROOT / "include" / "retraining"
    found = {
        str(path.relative_to(domain)): names
        for path in domain.rglob("*.py")
        if path != domain / "shelf.py" and (names := spelt_keys(path))
    }
    assert found == ALLOWED_KEYS, "move what is new to shelf.py, or say why it is none of its keys"


@pytest.mark.parametrize(
    "line",
    [
        'path = f"{url}/_delta_log"',
        'path = "_delta_log"',
        'key = f"{model}/reports/partition={name}"',
        'key = "landing/" + name',
    ],
)
def test_a_spelt_folder_is_found(line, tmp_path):
    module = tmp_path / "module.py"
    module.write_text(f'"""Reads _delta_log."""\n{line}\n')
    assert len(spelt_keys(module)) == 1


def test_how_large_a_file_is_fetched_whole_is_said_once():
    # the tables said it, too
    said = [
        path.name
        for path in (ROOT / "include" / "retraining").rglob("*.py")
        if re.search(r"^WHOLE_\w+ = ", path.read_text(), re.MULTILINE)
    ]
    assert said == ["storage.py"]


@pytest.mark.parametrize(
    "line",
    [
        'storage.read(f"{message}.json")',
        'key = folder + ".skops"',
        'names = {"cloudpickle": "model.pkl"}',
        'key = "landing/gate.json"  # docs/gate.md',
        """key = f"{model}/{'x.bin' if old else 'y'}" """,
    ],
)
def test_a_spelt_name_is_found(line, tmp_path):
    module = tmp_path / "module.py"
    module.write_text(f'"""Reads gate.json."""\n{line}\n')
    assert len(spelt(module)) == 1


def test_every_record_is_in_the_architecture_page():
    page = (ROOT / "docs" / "architecture.md").read_text()
    inner = {"Record", "Finding", "FeatureDrift", "FeatureSkew", "Performance", "ProperScore"}
    kinds = {
        name
        for name, value in vars(records).items()
        if isinstance(value, type) and issubclass(value, records.Record)
    }
    for name in kinds - inner:
        assert f"`{name}`" in page, name


def test_every_make_target_named_in_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text())):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE) or target in {"and"}, target
