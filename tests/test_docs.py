"""The documents are complete, and say what the code says."""

from __future__ import annotations

import re

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


SPELT = re.compile(r"""["'/][a-z_]+\.(?:json|html|png|bin|txt|md|parquet)\b""")
OWN_FILES = {
    "shelf.py",  # the one place
    "audit.py",  # names within its zip
    "delta_log.py",  # names of the Delta protocol
    "data_file.py",
}


def test_no_key_or_file_name_is_spelt_outside_of_the_shelf():
    for path in sorted((ROOT / "include" / "retraining").rglob("*.py")):
        if path.name in OWN_FILES:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(r"requirements\.txt|landing/|docs/|^\s*#", line):
                continue
            assert not SPELT.search(line), f"{path.name}:{number}: {line.strip()}"
    for path in [*ROOT.glob("dags/*.py"), *ROOT.glob("plugins/**/*.py")]:
        assert not SPELT.search(path.read_text()), path


def test_every_record_is_in_the_architecture_page():
    page = (ROOT / "docs" / "architecture.md").read_text()
    inner = {"Record", "Finding", "FeatureDrift", "FeatureSkew", "Performance"}
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
