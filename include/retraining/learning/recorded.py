"""The model of those who are served elsewhere: it says what a column of the batch says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from include.retraining.learning.metrics import Floats

if TYPE_CHECKING:
    import pandas as pd


class RecordedPredictions:
    """Gives back the predictions that another program made, as they came with the rows.

    Parameters
    ----------
    column : str
        Of the frame, with them.
    """

    def __init__(self, column: str) -> None:
        self.column = column

    def predict(self, frame: pd.DataFrame) -> Floats:
        """Give what was predicted of each row; of shape (n_rows,)."""
        found: Floats = frame[self.column].to_numpy(dtype="float64")
        return found

    def predict_proba(self, frame: pd.DataFrame) -> Floats:
        """Give the probability of 0 and of 1 of each row; of shape (n_rows, 2)."""
        found = self.predict(frame)
        return np.column_stack([1.0 - found, found])
