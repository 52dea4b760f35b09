"""The package is cheap to import and loads its leaves on first use."""

import subprocess
import sys

import pytest

import include.retraining.drift as drift


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, include.retraining.drift as drift\n"
        "heavy = {'numpy', 'scipy', 'pyarrow', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert drift.ks_distance([1], [2]) == 1.0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", drift.__all__)
def test_every_public_name_is_found(name: str) -> None:
    assert getattr(drift, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'ks'"):
        drift.ks  # noqa: B018
