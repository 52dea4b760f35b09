"""Changes what `feature_repo/flights_views.py` defines, as somebody does who edits it."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import feature_repo
from include.retraining.features import definitions


def redefine(monkeypatch, folder: Path, *edits: tuple[str, str], added: str = "") -> None:
    """Replace texts of the file, each there exactly once, and add others at its end."""
    copy = folder / "feature_repo"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(Path(feature_repo.__file__).parent, copy)
    path = copy / "flights_views.py"
    text = path.read_text()
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text + added)
    name = "feature_repo.flights_views"
    found = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(feature_repo, "flights_views", module, raising=False)
    monkeypatch.setattr(definitions, "FEATURE_REPO", copy)
    found.loader.exec_module(module)
