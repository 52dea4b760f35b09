"""A model that others trained and MLflow keeps, asked as ours are asked.

Its files are kept in it, so a version made of it goes on when the one it was taken from is deleted.
It is opened when it is first asked; opening it runs code that its files hold.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from include.retraining.errors import ScoringError
from include.retraining.learning.metrics import Floats
from include.retraining.registry import server
from include.retraining.spec import Task

if TYPE_CHECKING:
    import pandas as pd

WHOLE = {"integer": "int32", "long": "int64"}
REAL = {"double": "float64", "float": "float32"}


class AdoptedModel:
    """The files of one model of MLflow's, and what they are to predict.

    Parameters
    ----------
    files : mapping of str to bytes
        By their path in the model's folder.
    task : str
        `label.task` of the model file.
    classes : sequence of str
        `label.classes`, as text, in their order; empty unless multiclass.
    """

    def __init__(self, files: Mapping[str, bytes], *, task: Task, classes: tuple[str, ...]) -> None:
        self.files = dict(files)
        self.task = task
        self.names = classes
        self._open: server.OpenModel | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Give what is kept: the files, not what was made of them."""
        return self.__dict__ | {"_open": None, "_folder": None}

    @property
    def sha256(self) -> str:
        """The digest of all files with their names."""
        found = hashlib.sha256()
        for name in sorted(self.files):
            found.update(f"{name}\0{len(self.files[name])}\0".encode())
            found.update(self.files[name])
        return found.hexdigest()

    @property
    def opened(self) -> server.OpenModel:
        """The model that can be asked; raises ScoringError where its library cannot load it."""
        if self._open is None:
            folder = tempfile.TemporaryDirectory(prefix="adopted-")
            for name, content in self.files.items():
                path = Path(folder.name, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            try:
                self._open = server.open_model(Path(folder.name))
            except Exception as error:  # whatever its library raises
                raise ScoringError(
                    f"the adopted model cannot be opened: {type(error).__name__}: {error}. Install "
                    "what its requirements name where tasks run"
                ) from error
            self._folder = folder  # some read their files later
        return self._open

    @property
    def classes_(self) -> list[int]:
        """Which of `label.classes` each column of `predict_proba` is of; multiclass only."""
        return [self._number(name) for name in self._columns]

    @property
    def _columns(self) -> list[str]:
        """The classes that the model names, as text, in the order of its probabilities."""
        told = getattr(self.opened.model, "classes_", None)
        if told is None:
            return list(self.names)
        return [_text(one) for one in np.asarray(told).tolist()]

    def _number(self, name: str) -> int:
        if name not in self.names:
            raise ScoringError(
                f"the adopted model knows the class {name!r}, label.classes has "
                f"{', '.join(self.names)}; name it there, as the model spells it"
            )
        return self.names.index(name)

    def predict(self, frame: pd.DataFrame) -> Floats:
        """Give the predicted value of each row; of shape (n_rows,)."""
        found = np.asarray(self.opened.model.predict(self._inputs(frame)), dtype="float64")
        return found.reshape(len(frame))

    def predict_proba(self, frame: pd.DataFrame) -> Floats:
        """Give the probability of each class: of 0 and of 1, or in the order of `classes_`.

        Raises
        ------
        ScoringError
            The model gives no probabilities, or does not say of which class they are.
        """
        model, inputs = self.opened.model, self._inputs(frame)
        if hasattr(model, "predict_proba"):
            found = np.asarray(model.predict_proba(inputs), dtype="float64")
            if self.task == "multiclass":
                return found
            return _of_one(found, self._columns if hasattr(model, "classes_") else ["0", "1"])
        told = model.predict(inputs)
        if self.task == "multiclass":
            return self._by_name(told)
        found = np.asarray(told, dtype="float64").reshape(len(frame), -1)
        of_one = found[:, -1]
        if found.shape[1] > 2 or ((of_one < 0) | (of_one > 1)).any():
            raise ScoringError(
                f"the adopted model gives {found.shape[1]} columns from {of_one.min():g} to "
                f"{of_one.max():g}; a binary label needs one probability, or one of 0 and one of 1"
            )
        return np.column_stack([1.0 - of_one, of_one])

    def _by_name(self, told: Any) -> Floats:
        """Put columns that are named after classes into the order of `label.classes`."""
        columns = {_text(name): name for name in getattr(told, "columns", ())}
        if set(columns) != set(self.names):
            raise ScoringError(
                "the adopted model does not say of which class its numbers are: it must give one "
                f"column for each of {', '.join(self.names)}, named so; got "
                f"{', '.join(columns) or type(told).__name__}"
            )
        return np.column_stack([np.asarray(told[columns[name]], "float64") for name in self.names])

    def _inputs(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Give the features as the model says it wants them: which, in which order and type."""
        model, _, inputs = self.opened
        if inputs is None:
            named = getattr(model, "feature_names_in_", None)
            return frame if named is None else frame[_there(frame, [str(n) for n in named])]
        found = frame[_there(frame, [name for name, _ in inputs])].copy()
        for name, kind in inputs:
            found[name] = _as_type(found[name], kind)
        return found


def _there(frame: pd.DataFrame, names: list[str]) -> list[str]:
    if missing := [name for name in names if name not in frame.columns]:
        raise ScoringError(
            f"the adopted model learned from {', '.join(missing)}: no feature of the model file. "
            "Name all it learned from under features"
        )
    return names


def _as_type(column: Any, kind: str) -> Any:
    """Give a column as the type of a signature, where no value changes by it; else as it is."""
    import pandas as pd

    kind = kind.rsplit(".", 1)[-1]
    if kind in {*WHOLE, *REAL} and column.dtype == object:
        column = pd.to_numeric(column, errors="coerce").where(column.notna())
    if kind in WHOLE:
        is_whole = column.notna().all() and (column == column.round()).all()
        return column.astype(WHOLE[kind]) if is_whole else column
    if kind in REAL:
        return column.astype(REAL[kind])
    if kind == "boolean" and column.isin([0, 1, True, False]).all():
        return column.astype(bool)
    if kind == "string" and column.dtype == object:
        return column.map(lambda value: None if value is None else _text(value))
    return column


def _text(value: Any) -> str:
    """Give a class or category as text, a whole number without a point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _of_one(found: Floats, columns: list[str]) -> Floats:
    """Put the probabilities of 0 and of 1 in that order, by what the model calls its classes."""
    ones = [place for place, name in enumerate(columns) if name in {"1", "True"}]
    if found.ndim != 2 or found.shape[1] != 2 or len(ones) != 1:
        raise ScoringError(
            f"the adopted model knows the classes {', '.join(columns)}; a binary label is 0 or 1. "
            "Let it learn from these, or make the label multiclass"
        )
    return found[:, [1 - ones[0], ones[0]]]
