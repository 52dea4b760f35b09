"""The documents are complete, and say what the code says."""

from __future__ import annotations

import re

import pytest

from include.retraining import records
from include.retraining.cli.settings_table import settings_table
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
