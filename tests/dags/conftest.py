"""These tests need Airflow: it gets a home of its own before anything imports it."""

from __future__ import annotations

import pytest

from tests.airflow_home import configure

configure()


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(__file__.rpartition("/")[0]):
            item.add_marker(pytest.mark.airflow)
            # a task runs hundreds of third-party modules; their warnings are not ours to mend
            item.add_marker(pytest.mark.filterwarnings("ignore"))
