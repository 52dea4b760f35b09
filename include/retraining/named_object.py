"""Imports what a model file names, or says which of its parts is not there."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from include.retraining.errors import SpecError, did_you_mean


def load(path: str, *, setting: str) -> Any:
    """Give the object named ``module:name`` or ``module.name``.

    Parameters
    ----------
    setting : str
        Where the model file says so, such as ``features.tables``.

    Raises
    ------
    SpecError
        It cannot be imported, with the nearest name there is.
    """
    module_name, _, name = path.replace(":", ".").rpartition(".")
    place = tuple(setting.split("."))
    if not module_name or not name:
        raise SpecError(f"{setting}: must be module:function, got {path!r}", place=place)
    module = load_module(module_name, setting=setting)
    try:
        return getattr(module, name)
    except AttributeError as error:
        near = did_you_mean(name, [one for one in dir(module) if not one.startswith("_")])
        raise SpecError(f"{setting}: {module_name} has no {name!r}{near}", place=place) from error


def load_module(name: str, *, setting: str) -> Any:
    """Give a module; errors are those of `load`."""
    place = tuple(setting.split("."))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not f"{name}.".startswith(f"{missing}."):  # one that it imports
            raise SpecError(
                f"{setting}: {name} cannot be imported: {error}", place=place
            ) from error
        near = did_you_mean(missing.rpartition(".")[2], _modules_in(missing.rpartition(".")[0]))
        raise SpecError(f"{setting}: no module {missing!r}{near}", place=place) from error
    except Exception as error:  # a module of the user's may raise anything
        what = f"{type(error).__name__}: {error}"
        raise SpecError(f"{setting}: {name} cannot be imported: {what}", place=place) from error


def _modules_in(package: str) -> list[str]:
    paths = getattr(importlib.import_module(package), "__path__", []) if package else None
    return [module.name for module in pkgutil.iter_modules(paths)]
